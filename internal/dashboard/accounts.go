package dashboard

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
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
		return putAccount(accounts, firstAccount, Admin, hashPassword(password), 0)
	})
	if err != nil {
		return "", fmt.Errorf("dashboard: create the first account: %w", err)
	}
	return password, nil
}

// HasAccount reports whether anybody can log in.
func HasAccount(ctx context.Context, db Database) (bool, error) {
	all, err := listAccounts(ctx, db)
	if err != nil {
		return false, fmt.Errorf("dashboard: read the accounts: %w", err)
	}
	return len(all) > 0, nil
}

// newPassword has 80 random bits: no one guesses it, and a person can still type it.
func newPassword() string {
	var b [10]byte
	rand.Read(b[:]) //nolint:errcheck // never fails
	s := base32.StdEncoding.EncodeToString(b[:])
	return s[:4] + "-" + s[4:8] + "-" + s[8:12] + "-" + s[12:]
}

var accountName = regexp.MustCompile(`^[a-z0-9][a-z0-9._@-]{0,63}$`)

// An accountChange is what an admin wants of one account.
type accountChange struct {
	name     string
	role     Role
	password string // "": a new one is made up
	remove   bool
	create   bool  // the account must be new
	keepRole bool  // only the password changes: the account must be there
	seen     int64 // version of the account that the caller saw; -1: whatever it is
	by       string
	at       time.Time
}

// changeAccount makes a change, all of it or nothing, and returns the new password.
func changeAccount(ctx context.Context, db Database, c accountChange) (string, error) {
	if c.password == "" {
		c.password = newPassword()
	}
	if !c.remove {
		if err := checkNewPassword(c.password); err != nil {
			return "", err
		}
	}
	if !accountName.MatchString(c.name) {
		return "", badInput("The account name "+quote(short(c.name))+" cannot be used.", "Use lower-case letters, digits and . _ @ -, at most 64.")
	}
	hash := ""
	if !c.remove {
		hash = hashPassword(c.password) // slow on purpose: before the transaction, not in it
	}
	err := db.Update(ctx, func(tx *store.Tx) error { return c.apply(tx, hash) })
	if err != nil || c.remove {
		return "", err
	}
	return c.password, nil
}

func checkNewPassword(password string) error {
	if utf8.RuneCountInString(password) < minPassword || len(password) > maxPassword {
		return badInput("The password does not fit.", fmt.Sprintf("Use %d to %d characters.", minPassword, maxPassword))
	}
	return nil
}

func (c accountChange) apply(tx *store.Tx, hash string) error {
	accounts := tx.Records(accountKind)
	all, err := accounts.List()
	if err != nil {
		return err
	}
	version, admins := int64(0), 0
	for _, r := range all {
		if r.Name != c.name && accountOf(r).role == Admin {
			admins++
		} else if r.Name == c.name {
			version = r.Version
			if c.keepRole {
				c.role = accountOf(r).role
			}
		}
	}
	if err := c.allowed(version, admins, len(all)); err != nil {
		return err
	}
	what := "changed an account"
	switch {
	case c.remove:
		what, err = "removed an account", accounts.Delete(c.name)
	default:
		if version == 0 {
			what = "made an account"
		} else if c.keepRole {
			what = "gave an account a new password"
		}
		err = putAccount(accounts, c.name, c.role, hash, version)
	}
	if err != nil {
		return err
	}
	return logAction(tx, Action{c.at, c.by, what, c.name, map[bool]string{false: c.role.String()}[c.remove]})
}

// allowed refuses what makes no sense for an account of that version (0: there is none) among so many others.
func (c accountChange) allowed(version int64, otherAdmins, accounts int) error {
	switch {
	case c.create && version != 0:
		return &failure{http.StatusConflict, "There is an account " + quote(c.name) + " already.", "A second one cannot have its name.", "Choose another name, or give that one a new password."}
	case (c.remove || c.keepRole) && version == 0:
		return &failure{http.StatusNotFound, "There is no account " + quote(c.name) + ".", "It may be mistyped, or somebody removed it.", "Look at the list of accounts."}
	case c.seen >= 0 && c.seen != version:
		return &failure{http.StatusConflict, "The account has changed meanwhile.", "Somebody else was quicker.", "Look at it again, and repeat the change if it still makes sense."}
	case (c.remove || c.role != Admin) && otherAdmins == 0:
		return &failure{http.StatusConflict, "This is the last account that may change anything.", "Without it nobody could administer occam.", "Make another admin first."}
	case version == 0 && accounts >= maxAccounts:
		return badInput(fmt.Sprintf("There are %d accounts already.", maxAccounts), "Remove one first.")
	}
	return nil
}

func putAccount(accounts store.Records, name string, role Role, hash string, version int64) error {
	value, err := json.Marshal(accountRecord{Role: role.String(), Hash: hash})
	if err != nil {
		return err
	}
	return accounts.Put(store.Record{Name: name, Version: version, Value: value})
}

// A login is an account as it is checked.
type login struct {
	name    string
	role    Role
	hash    string
	version int64
}

func accountOf(r store.Record) login {
	var a accountRecord
	if json.Unmarshal(r.Value, &a) != nil {
		return login{name: r.Name, version: r.Version}
	}
	role, _ := parseRole(a.Role)
	return login{r.Name, role, a.Hash, r.Version}
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

// checkPassword returns the account if the password is its own, and that of Nobody otherwise.
func checkPassword(ctx context.Context, db Database, name, password string) (login, error) {
	if len(password) > maxPassword {
		return login{}, nil
	}
	found, err := readAccount(ctx, db, name)
	if err != nil {
		return login{}, err
	}
	if !passwordMatches(cmp.Or(found.hash, nobodysHash), password) {
		return login{}, nil
	}
	return found, nil
}

// readAccount returns the account of a name, that of Nobody where there is none.
func readAccount(ctx context.Context, db Database, name string) (found login, err error) {
	err = db.View(ctx, func(tx *store.Tx) error {
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
		err = fmt.Errorf("dashboard: read the account: %w", err)
	}
	return found, err
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
