package dashboard

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"occam/internal/store"
)

// A Role is what an account may do. A higher role may do all that a lower one may.
type Role int

const (
	Nobody   Role = iota // not logged in
	Viewer               // looks at everything, changes nothing
	Reviewer             // also answers the review queue
	Admin                // does everything
)

// String is the role's name as it is stored and shown.
func (r Role) String() string { return [...]string{"nobody", "viewer", "reviewer", "admin"}[r] }

func parseRole(name string) (Role, bool) {
	switch name {
	case "viewer":
		return Viewer, true
	case "reviewer":
		return Reviewer, true
	case "admin":
		return Admin, true
	}
	return Nobody, false
}

// A Database keeps the accounts and what the pages beyond the ledger show. *store.Store is one.
type Database interface {
	View(ctx context.Context, f func(*store.Tx) error) error
	Update(ctx context.Context, f func(*store.Tx) error) error
}

var _ Database = (*store.Store)(nil)

// accountRecord is how an account is stored, under its name.
type accountRecord struct {
	Role string `json:"role"`
	Hash string `json:"hash"`
}

const (
	accountKind  = "account"
	firstAccount = "admin"
	maxAccounts  = 100
	minPassword  = 10
	maxPassword  = 200 // hashing longer ones would only cost time
)

// FirstPassword creates the account "admin" where there is no account yet, and returns its password, which is shown once and
// cannot be read back. It returns "" where accounts exist.
func FirstPassword(ctx context.Context, db Database) (password string, err error) {
	err = db.Update(ctx, func(tx *store.Tx) error {
		accounts := tx.Records(accountKind)
		all, err := accounts.List()
		if err != nil || len(all) > 0 {
			return err
		}
		password = newPassword()
		return putAccount(accounts, firstAccount, Admin, password, 0)
	})
	if err != nil {
		return "", fmt.Errorf("dashboard: create the first account: %w", err)
	}
	return password, nil
}

// newPassword has 80 random bits: no one guesses it, and a person can still type it.
func newPassword() string {
	var b [10]byte
	rand.Read(b[:]) //nolint:errcheck // never fails
	s := base32.StdEncoding.EncodeToString(b[:])
	return s[:4] + "-" + s[4:8] + "-" + s[8:12] + "-" + s[12:]
}

var accountName = regexp.MustCompile(`^[a-z0-9][a-z0-9._@-]{0,63}$`)

func putAccount(accounts store.Records, name string, role Role, password string, version int64) error {
	value, err := json.Marshal(accountRecord{Role: role.String(), Hash: hashPassword(password)})
	if err != nil {
		return err
	}
	return accounts.Put(store.Record{Name: name, Version: version, Value: value})
}

// SetAccount creates an account or changes its role and password. An empty password makes a new one, which is returned.
func SetAccount(ctx context.Context, db Database, name string, role Role, password string) (string, error) {
	if password == "" {
		password = newPassword()
	}
	switch {
	case !accountName.MatchString(name):
		return "", badInput("The account name "+quote(name)+" cannot be used.", "Use lower-case letters, digits and . _ @ -, at most 64.")
	case utf8.RuneCountInString(password) < minPassword || len(password) > maxPassword:
		return "", badInput("The password does not fit.", fmt.Sprintf("Use %d to %d characters.", minPassword, maxPassword))
	}
	err := db.Update(ctx, func(tx *store.Tx) error {
		accounts := tx.Records(accountKind)
		all, err := accounts.List()
		if err != nil {
			return err
		}
		version, admins := int64(0), 0
		for _, r := range all {
			if r.Name == name {
				version = r.Version
			} else if accountOf(r).role == Admin {
				admins++
			}
		}
		switch {
		case role != Admin && admins == 0:
			return errLastAdmin
		case version == 0 && len(all) >= maxAccounts:
			return badInput(fmt.Sprintf("There are %d accounts already.", maxAccounts), "Remove one first.")
		}
		return putAccount(accounts, name, role, password, version)
	})
	return password, err
}

var errLastAdmin = &failure{409, "This is the last account that may change anything.", "Without it nobody could administer occam.", "Make another admin first."}

// removeAccount ends an account.
func removeAccount(ctx context.Context, db Database, name string) error {
	return db.Update(ctx, func(tx *store.Tx) error {
		accounts := tx.Records(accountKind)
		all, err := accounts.List()
		if err != nil {
			return err
		}
		admins := 0
		for _, r := range all {
			if r.Name != name && accountOf(r).role == Admin {
				admins++
			}
		}
		if admins == 0 {
			return errLastAdmin
		}
		return accounts.Delete(name)
	})
}

// A login is an account as it is checked.
type login struct {
	name string
	role Role
	hash string
}

func accountOf(r store.Record) login {
	var a accountRecord
	if json.Unmarshal(r.Value, &a) != nil {
		return login{name: r.Name}
	}
	role, _ := parseRole(a.Role)
	return login{r.Name, role, a.Hash}
}

// listAccounts returns all accounts by name.
func listAccounts(ctx context.Context, db Database) (all []login, err error) {
	err = db.View(ctx, func(tx *store.Tx) error {
		records, err := tx.Records(accountKind).List()
		for _, r := range records {
			all = append(all, accountOf(r))
		}
		return err
	})
	return all, err
}

// nobodysHash is hashed against where there is no such account, so that it takes the same time. It was made of random bytes
// that nobody kept; no password leads to it.
const nobodysHash = "$argon2id$v=19$m=19456,t=2,p=1$b2NjYW1vY2NhbW9jY2Ftbw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// checkPassword returns the role of the account if the password is its own, and Nobody otherwise.
func checkPassword(ctx context.Context, db Database, name, password string) (Role, error) {
	if len(password) > maxPassword {
		return Nobody, nil
	}
	found := login{hash: nobodysHash}
	err := db.View(ctx, func(tx *store.Tx) error {
		r, err := tx.Records(accountKind).Get(name)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err == nil {
			found = accountOf(r)
		}
		return err
	})
	if err != nil {
		return Nobody, fmt.Errorf("dashboard: read the account: %w", err)
	}
	if !passwordMatches(found.hash, password) {
		return Nobody, nil
	}
	return found.role, nil
}

// Cost of argon2id, as OWASP's Password Storage Cheat Sheet recommends: 19 MiB, two passes, one lane.
const (
	argonMemory, argonTime, argonLanes, argonLength = 19456, 2, 1, 32
)

// hashPassword returns the argon2id hash in the PHC string format.
func hashPassword(password string) string {
	var salt [16]byte
	rand.Read(salt[:]) //nolint:errcheck // never fails
	sum := argon2.IDKey([]byte(password), salt[:], argonTime, argonMemory, argonLanes, argonLength)
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonLanes, b64(salt[:]), b64(sum))
}

// passwordMatches compares in constant time. A hash that was made at another cost than ours is refused: the database could
// otherwise make us spend any amount of memory.
func passwordMatches(hash, password string) bool {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" || parts[3] != fmt.Sprintf("m=%d,t=%d,p=%d", argonMemory, argonTime, argonLanes) {
		return false
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(want) != argonLength {
		return false
	}
	got := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonLanes, argonLength)
	return subtle.ConstantTimeCompare(got, want) == 1
}
