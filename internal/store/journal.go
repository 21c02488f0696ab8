package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"occam/internal/cost"
)

// A journal makes entries of the chain durable before SQLite has them: a caller waits for one write to the end of a file, and
// the applier puts many entries into the database at once later. Two files take turns: the writer goes over to the other one
// when everything in it is in the database. What an earlier turn left behind the newest entry is told apart by its numbers.
//
// An entry in the file is what its hash in the chain covers, which begins with the hash of the entry before it, then what it
// does to budgets.
type journal struct {
	files   [2]*journalFile
	current int
	sync    bool // with every append; otherwise in the background
	frames  []byte
	syncing sync.WaitGroup
	failed  atomic.Pointer[error] // of the first sync that failed: there is no other after it
}

type journalFile struct {
	file diskFile
	// The same file, opened once for each sync that may be under way. A descriptor is told of a failed write once: of two syncs by
	// one of them at a time only the later one might hear of it.
	again []diskFile
	idle  []diskFile // those of again that no sync uses
	size  int64
	last  int64 // number of its last entry
}

// A journalSync is the sync of one append.
type journalSync struct {
	file  *journalFile
	by    diskFile
	began time.Time
	took  time.Duration // valid when done has sent
	done  chan error    // sends the result, once
}

// A diskFile is what a journal needs of a file. Tests put a disk under it that fails.
type diskFile interface {
	io.ReaderAt
	io.WriterAt
	Sync() error // of what was written; times do not matter
	Close() error
}

// An osFile is a file on the real disk.
type osFile struct{ *os.File }

func (f osFile) Sync() error { return syncData(f.File) }

func openFile(path string) (diskFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	return osFile{f}, err
}

const (
	journalTurn  = 1 << 20 // bytes from which the writer goes over to the other file
	frameHeader  = 8       // length and CRC-32C
	maxFrame     = 1 << 16 // bytes; a row is below 1 KB
	journalName0 = "occam.journal0"
	journalName1 = "occam.journal1"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openJournal opens or creates the files in dir.
func openJournal(dir string, sync bool, open func(path string) (diskFile, error)) (*journal, error) {
	j := &journal{sync: sync}
	for i, name := range []string{journalName0, journalName1} {
		file, err := open(filepath.Join(dir, name))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("store: open the journal: %w", err), j.close())
		}
		f := &journalFile{file: file}
		j.files[i] = f
		for sync && len(f.again) < maxFlights {
			again, err := open(filepath.Join(dir, name))
			if err != nil {
				return nil, errors.Join(fmt.Errorf("store: open the journal: %w", err), j.close())
			}
			f.again, f.idle = append(f.again, again), append(f.idle, again)
		}
	}
	return j, nil
}

// append writes entries, all or none, and begins to sync them. At most maxFlights syncs may be under way, and release must be called
// after each. applied is the last entry that the database has on the disk: a file that is overwritten has nothing newer, so
// nothing that is being synced.
func (j *journal) append(links []*link, applied int64) (*journalSync, error) {
	if err := j.failed.Load(); err != nil {
		return nil, *err
	}
	f := j.files[j.current]
	if other := j.files[1-j.current]; f.size >= journalTurn && other.last <= applied {
		j.current = 1 - j.current
		f = other
		f.size = 0
	}
	j.frames = j.frames[:0]
	for _, l := range links {
		j.frames = l.appendFrame(j.frames)
	}
	if _, err := f.file.WriteAt(j.frames, f.size); err != nil {
		return nil, fmt.Errorf("store: journal: %w", err)
	}
	f.size += int64(len(j.frames))
	f.last = links[len(links)-1].end.seq
	if !j.sync {
		return synced(), nil
	}
	last := len(f.idle) - 1
	s := &journalSync{file: f, by: f.idle[last], began: time.Now(), done: make(chan error, 1)}
	f.idle = f.idle[:last]
	j.syncing.Go(func() {
		err := s.by.Sync()
		if err != nil {
			err = fmt.Errorf("%w: journal: %w", errUntrusted, err)
			j.failed.CompareAndSwap(nil, &err)
		}
		s.took = time.Since(s.began)
		s.done <- err
	})
	return s, nil
}

// synced returns a sync that is over: there was nothing to do.
func synced() *journalSync {
	s := &journalSync{began: time.Now(), done: make(chan error, 1)}
	s.done <- nil
	return s
}

// release takes back what a sync that is over used. It returns the first error of any sync: what this one made durable does not
// count then.
func (j *journal) release(s *journalSync) error {
	if s.file != nil {
		s.file.idle = append(s.file.idle, s.by)
	}
	if err := j.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// empty forgets everything: it is in the database.
func (j *journal) empty() error {
	for _, f := range j.files {
		if _, err := f.file.WriteAt(make([]byte, frameHeader), 0); err != nil { // its blocks stay its own: syncs are faster
			return fmt.Errorf("store: empty the journal: %w", err)
		}
		f.size, f.last = 0, 0
	}
	return nil
}

func (j *journal) close() error {
	j.syncing.Wait()
	var errs []error
	for _, f := range j.files {
		if f == nil {
			continue
		}
		errs = append(errs, f.file.Close())
		for _, again := range f.again {
			errs = append(errs, again.Close())
		}
	}
	return errors.Join(errs...)
}

// read returns every entry in the files, in order.
func (j *journal) read(lane int64) ([]*link, error) {
	var all []*link
	for _, f := range j.files {
		links, err := f.read(lane)
		if err != nil {
			return nil, err
		}
		all = append(all, links...)
	}
	slices.SortStableFunc(all, func(a, b *link) int { return cmp.Compare(a.end.seq, b.end.seq) })
	return all, nil
}

// following returns those entries of a journal that continue a chain, each following the one before. Others are of an earlier
// turn, or of a history that was given up. find returns a row of the database by its position, for an outcome does not repeat
// its intent.
func following(all []*link, end head, find func(n int64) (*row, error)) (next []*link, err error) {
	begun := map[int64]*row{}
	for _, l := range all {
		if l.end.seq != end.seq+1 || string(l.covered[:len(end.hash)]) != string(end.hash[:]) {
			continue
		}
		if l.kind == kindOutcome {
			intent := begun[l.row.n]
			if intent == nil {
				if intent, err = find(l.row.n); err != nil {
					return nil, err
				}
			}
			n, holds := l.row.n, l.row.holds
			l.row = *intent.withOutcome(l.row.Attempt, l.row.closedAt)
			l.row.n, l.row.holds = n, holds
		}
		begun[l.row.n] = &l.row
		end = end.after(l.row.n, l.covered)
		l.end = end
		next = append(next, l)
	}
	return next, nil
}

// read parses a file's entries up to the first one that does not follow the one before it.
func (f *journalFile) read(lane int64) (links []*link, err error) {
	content, err := io.ReadAll(io.NewSectionReader(f.file, 0, math.MaxInt64))
	if err != nil {
		return nil, fmt.Errorf("store: read the journal: %w", err)
	}
	for len(content) >= frameHeader {
		size := binary.BigEndian.Uint32(content)
		if size > maxFrame || int(size) > len(content)-frameHeader {
			break
		}
		body := content[frameHeader : frameHeader+size]
		if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(content[4:]) {
			break
		}
		l, ok := parseFrame(body)
		if !ok || l.end.lane != lane || len(links) > 0 && l.end.seq != links[len(links)-1].end.seq+1 {
			break
		}
		links = append(links, l)
		content = content[frameHeader+size:]
	}
	return links, nil
}

// appendFrame writes an entry as it stands in the file.
func (l *link) appendFrame(b []byte) []byte {
	from := len(b)
	b = append(b, make([]byte, frameHeader)...)
	b = append(b, l.covered...)
	for _, h := range l.row.holds {
		b = appendText(b, h.name)
		for _, v := range []int64{h.start, int64(h.amount), int64(h.after.Spent), int64(h.after.Reserved)} {
			b = binary.BigEndian.AppendUint64(b, uint64(v))
		}
	}
	body := b[from+frameHeader:]
	binary.BigEndian.PutUint32(b[from:], uint32(len(body)))
	binary.BigEndian.PutUint32(b[from+4:], crc32.Checksum(body, castagnoli))
	return b
}

// parseFrame undoes appendFrame. Of an outcome, the row has its second half only.
func parseFrame(body []byte) (*link, bool) {
	p := &parser{left: body}
	l := &link{}
	p.take(len(l.end.hash))
	l.end.lane, l.end.seq = p.int(), p.int()
	l.kind = kind(p.take(1)[0])
	l.row.n, l.note = p.int(), p.text()
	if l.kind == kindIntent || l.kind == kindFree {
		p.intent(&l.row)
	}
	if l.kind == kindOutcome || l.kind == kindFree {
		p.outcome(&l.row)
	}
	l.covered = body[:len(body)-len(p.left)]
	for len(p.left) > 0 && !p.short {
		h := hold{accountID: accountID{p.text(), p.int()}, amount: cost.Amount(p.int())}
		h.after = Balance{cost.Amount(p.int()), cost.Amount(p.int())}
		l.row.holds = append(l.row.holds, h)
	}
	return l, !p.short
}

// A parser reads what appendEntry wrote. After the end everything is zero and short is set.
type parser struct {
	left  []byte
	short bool
}

func (p *parser) take(n int) []byte {
	if n < 0 || n > len(p.left) {
		p.short, p.left = true, nil
		return make([]byte, min(max(n, 0), 64))
	}
	taken := p.left[:n]
	p.left = p.left[n:]
	return taken
}

func (p *parser) int() int64 { return int64(binary.BigEndian.Uint64(p.take(8))) }

func (p *parser) text() string {
	n, size := binary.Uvarint(p.left)
	if size <= 0 || n > uint64(len(p.left)) {
		p.short, p.left = true, nil
		return ""
	}
	p.take(size)
	return string(p.take(int(n)))
}

// intent undoes appendIntent.
func (p *parser) intent(r *row) {
	for _, s := range []*string{&r.ID, &r.RequestID, &r.KeyID, &r.Task, &r.Tier, &r.Provider, &r.Model, &r.intentPrice} {
		*s = p.text()
	}
	r.Seq, r.At = int(p.int()), time.Unix(0, p.int()).UTC()
	p.short = r.setAudit(p.int()) != nil || p.short
	r.Simulated, r.InputHash = p.int() == 1, uint64(p.int())
	r.intentLow, r.intentHigh = cost.Amount(p.int()), cost.Amount(p.int())
	r.State = Pending
}

// outcome undoes appendOutcome.
func (p *parser) outcome(r *row) {
	r.State, r.Price, r.Reason = State(p.text()), p.text(), p.text()
	r.closedAt, r.Cost, r.CostLow, r.CostHigh = p.int(), cost.Amount(p.int()), cost.Amount(p.int()), cost.Amount(p.int())
	r.Reference = cost.Amount(p.int())
	u := &r.Usage
	u.Input, u.Cached, u.CacheWrite, u.Output, u.Reasoning = p.int(), p.int(), p.int(), p.int(), p.int()
	r.Answered, r.Confidence = p.int() == 1, math.Float64frombits(uint64(p.int()))
	r.Status, r.Latency = int(p.int()), time.Duration(p.int())
}
