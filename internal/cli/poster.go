package cli

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A poster posts JSON documents to one address. Whoever has the address may post: it never reaches a log.
type poster struct {
	address string // "": nothing is sent
	secret  string // of X-Occam-Signature, "" for none
	client  *http.Client
}

func newPoster(address, secret string) *poster {
	// A redirect is not followed: it would carry the document to who knows where.
	client := &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &poster{address: address, secret: secret, client: client}
}

// slackText keeps names that apps chose, such as a model's, from being read as a mention or a link.
var slackText = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// send posts a document; whatever is not answered with 2xx is an error.
func (h *poster) send(ctx context.Context, document any) error {
	if h.address == "" {
		return nil
	}
	body, err := json.Marshal(document)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.address, bytes.NewReader(body))
	if err != nil {
		return errors.New("its address is none") // the error would show it
	}
	request.Header.Set("Content-Type", "application/json")
	if h.secret != "" {
		sum := hmac.New(sha256.New, []byte(h.secret))
		sum.Write(body)
		request.Header.Set("X-Occam-Signature", "sha256="+hex.EncodeToString(sum.Sum(nil)))
	}
	response, err := h.client.Do(request)
	if err != nil {
		return withoutAddress(err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 4096))
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("it answers %s", response.Status)
	}
	return nil
}

// withoutAddress takes the address out of an error of the HTTP client: a webhook's path is its password.
func withoutAddress(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
