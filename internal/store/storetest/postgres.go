package storetest

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"occam/internal/store"
)

// A Postgres is a real server on loopback, in a temporary folder.
type Postgres struct {
	bin, dir string
	port     int
	as       *syscall.Credential // the server refuses to run as root
	made     atomic.Int64
}

// StartPostgres starts a server for the test. It skips the test, saying so, where PostgreSQL is not installed. The server does
// not sync to the disk: it is fast, and survives everything but the machine's death.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	p := &Postgres{bin: postgresBin(t)}
	dir, err := os.MkdirTemp("", "occam-pg-*")
	must(t, err)
	p.dir = dir
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Geteuid() == 0 {
		p.as = unprivileged(t)
		must(t, os.Chown(dir, int(p.as.Uid), int(p.as.Gid)))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p.port = listener.Addr().(*net.TCPAddr).Port
	must(t, listener.Close())
	p.run(t, "initdb", "--pgdata", filepath.Join(dir, "data"), "--username", "occam", "--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C")
	p.Start(t)
	t.Cleanup(func() { p.Stop(t, "immediate") })
	return p
}

// postgresBin finds initdb and pg_ctl.
func postgresBin(t testing.TB) string {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path)
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		t.Skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
	}
	return filepath.Dir(slices.Max(found))
}

// unprivileged returns somebody other than root.
func unprivileged(t testing.TB) *syscall.Credential {
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, _ := strconv.ParseUint(u.Uid, 10, 32)
			gid, _ := strconv.ParseUint(u.Gid, 10, 32)
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	t.Skip("PostgreSQL does not run as root, and there is nobody else")
	return nil
}

// run runs one of PostgreSQL's commands to its end.
func (p *Postgres) run(t testing.TB, command string, args ...string) {
	t.Helper()
	limited, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(limited, filepath.Join(p.bin, command), args...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	log, err := os.Create(filepath.Join(p.dir, command+".out")) // a pipe would stay open in the server
	must(t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("%s: %v\n%s", command, err, text)
	}
}

// Start starts the server after Stop.
func (p *Postgres) Start(t testing.TB) {
	t.Helper()
	options := fmt.Sprintf("-h 127.0.0.1 -p %d -k '' -F -c max_connections=200 -c shared_buffers=32MB", p.port)
	p.run(t, "pg_ctl", "--pgdata", filepath.Join(p.dir, "data"), "--log", filepath.Join(p.dir, "server.log"), "--wait", "--options", options, "start")
}

// Stop stops the server; mode is "fast", or "immediate", which is a crash.
func (p *Postgres) Stop(t testing.TB, mode string) {
	if _, err := os.Stat(filepath.Join(p.dir, "data", "postmaster.pid")); err == nil {
		p.run(t, "pg_ctl", "--pgdata", filepath.Join(p.dir, "data"), "--wait", "--mode", mode, "stop")
	}
}

// Address is where the server listens.
func (p *Postgres) Address() string { return fmt.Sprintf("127.0.0.1:%d", p.port) }

// address returns the address of a schema.
func (p *Postgres) address(schema string) string {
	return fmt.Sprintf("postgres://occam@127.0.0.1:%d/postgres?sslmode=disable&search_path=%s", p.port, schema)
}

// Backend makes databases on the server: schemas, really, which are as separate and are made in no time.
func (p *Postgres) Backend() Backend {
	return Backend{
		Shared: true,
		New: func(t testing.TB) (string, store.Options) {
			name := fmt.Sprint("test", p.made.Add(1))
			admin := p.raw(t, p.address("public"))
			defer admin.Close()
			mustExec(t, admin, `CREATE SCHEMA `+name)
			return p.address(name), store.Options{Dir: t.TempDir(), Lease: time.Second}
		},
		Raw: p.raw,
	}
}

func (p *Postgres) raw(t testing.TB, dsn string) *sql.DB {
	db, err := sql.Open("pgx", dsn)
	must(t, err)
	return db
}

// Log returns the end of the server's own log.
func (p *Postgres) Log() string {
	text, _ := os.ReadFile(filepath.Join(p.dir, "server.log"))
	lines := strings.Split(string(text), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}
