package store_test

import (
	"testing"

	"occam/internal/store"
	"occam/internal/store/storetest"
)

func TestRedactContacts(t *testing.T) {
	for text, want := range map[string]string{
		"write to ann.o'hara+x@mail.example.co.uk now": "write to ann.o'[email] now",
		"Grüße, jürgen@müller.de":                      "Grüße, [email]",
		"card 4111 1111 1111 1111 was charged":         "card [card] was charged",
		"card 4111-1111-1111-1112 was charged":         "card 4111-1111-1111-1112 was charged", // wrong check digit: an order?
		"IBAN DE89 3704 0044 0532 0130 00 please":      "IBAN [iban] please",
		"GB82WEST12345698765432":                       "[iban]",
		"call +49 30 901820-0 or (030) 9018 2000":      "call [phone] or [phone]",
		"call 0044 20 7946 0958.":                      "call [phone].",
		"order AB-1234, tracking 9400110200881":        "order AB-1234, tracking 9400110200881",
		"order 00012345 of 2026-11-23, total 1,299.00": "order 00012345 of 2026-11-23, total 1,299.00",
		"0000 0000 0000 0000":                          "0000 0000 0000 0000",
		"":                                             "",
	} {
		if got := store.RedactContacts(text); got != want {
			t.Errorf("%q\n got %q\nwant %q", text, got, want)
		}
	}
}

// TestRedact sees that no way into the store goes past the redaction.
func TestRedact(t *testing.T) {
	s := openDir(t, t.TempDir(), store.Options{Redact: store.RedactContacts})
	captured := store.Example{ID: "a", Task: "triage", RequestID: "r-a", Text: "I am ann@example.com"}
	must(t, s.Capture(ctx, captured))
	added := store.Example{ID: "b", Task: "triage", RequestID: "r-b", Text: "I am bob@example.com"}
	must(t, s.Update(ctx, func(tx *store.Tx) error { return tx.Examples().Add(added) }))
	must(t, s.RecordFree(ctx, storetest.Local("c", added.At)))
	must(t, s.Close())
	s = openDir(t, s.Dir(), store.Options{})
	must(t, s.View(ctx, func(tx *store.Tx) error {
		page, _, err := tx.Examples().Page("triage", 0, 10)
		for _, e := range page {
			if e.Text != "I am [email]" {
				t.Errorf("kept %q", e.Text)
			}
		}
		if len(page) != 2 {
			t.Errorf("%d examples", len(page))
		}
		return err
	}))
}
