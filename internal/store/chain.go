package store

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"strings"
	"sync"

	"occam/internal/cost"
)

// A row is an attempt as the database holds it.
type row struct {
	Attempt
	n           int64 // position: unique, grows with time; its low 8 bits are the lane that wrote it
	intentPrice string
	intentLow   cost.Amount
	intentHigh  cost.Amount
	closedAt    int64 // Unix nanoseconds, 0 while open
	holds       []hold
	written     bool // the intent is durable: in the database, the journal or the spill file
}

// A kind says what a chain entry vouches for.
type kind byte

const (
	kindIntent  kind = 'i' // the intent half of attempt n
	kindOutcome kind = 'o' // the outcome half of attempt n
	kindFree    kind = 'f' // both halves of attempt n
	kindNote    kind = 'x' // a remark on the chain itself: lost head file, accepted loss
	kindNotice  kind = 'e' // something that happened beside the attempts, see Notice
	kindCapture kind = 'c' // no entry: an example that is stored with the next commit
)

// alone reports whether an entry of the kind vouches for its note only, not for an attempt.
func (k kind) alone() bool { return k == kindNote || k == kindNotice }

// A head is the last entry of a lane's chain.
type head struct {
	lane int64
	seq  int64 // 0: the chain is empty
	n    int64 // last position given out
	hash [sha256.Size]byte
}

// next returns the head after one more entry: the hash covers the one before, so changing, dropping or moving any entry
// changes every later hash.
func (h head) next(k kind, n int64, note string, r *row) head {
	return h.after(n, h.appendEntry(make([]byte, 0, 1024), k, n, note, r))
}

// after returns the head after an entry at position n, of which everything is given that the hash covers.
func (h head) after(n int64, covered []byte) head {
	return head{lane: h.lane, seq: h.seq + 1, n: max(h.n, n), hash: sha256.Sum256(covered)}
}

// appendEntry writes everything that the hash of the next entry covers.
func (h head) appendEntry(b []byte, k kind, n int64, note string, r *row) []byte {
	b = append(b, h.hash[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.lane))
	b = binary.BigEndian.AppendUint64(b, uint64(h.seq+1))
	b = append(b, byte(k))
	b = binary.BigEndian.AppendUint64(b, uint64(n))
	b = appendText(b, note)
	if r != nil && (k == kindIntent || k == kindFree) {
		b = r.appendIntent(b)
	}
	if r != nil && (k == kindOutcome || k == kindFree) {
		b = r.appendOutcome(b)
	}
	return b
}

// appendIntent writes what Intend stores, in a form that no other row shares.
func (r *row) appendIntent(b []byte) []byte {
	for _, s := range []string{r.ID, r.RequestID, r.KeyID, r.Task, r.Tier, r.Provider, r.Model, r.intentPrice} {
		b = appendText(b, s)
	}
	for _, v := range []int64{int64(r.Seq), r.At.UnixNano(), r.audit(), flag(r.Simulated), int64(r.InputHash),
		int64(r.intentLow), int64(r.intentHigh)} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return b
}

// appendOutcome writes what Finish stores.
func (r *row) appendOutcome(b []byte) []byte {
	for _, s := range []string{string(r.State), r.Price, r.Reason} {
		b = appendText(b, s)
	}
	u := r.Usage
	for _, v := range []int64{r.closedAt, int64(r.Cost), int64(r.CostLow), int64(r.CostHigh), int64(r.Reference),
		u.Input, u.Cached, u.CacheWrite, u.Output, u.Reasoning, flag(r.Answered), int64(math.Float64bits(r.Confidence)),
		int64(r.Status), int64(r.Latency)} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// A headFile keeps the head of each lane outside the database, so that a database which was cut short or replaced by an
// older copy is noticed. Each lane has two slots, written in turn, so that a torn write spoils at most the older one.
type headFile struct {
	mu     sync.Mutex
	file   *os.File
	synced map[int64]int64 // by lane, the last entry known to be on the disk itself
}

// An outsideHead is a head as the file has it.
type outsideHead struct {
	head
	synced int64
}

const (
	headSlot = 256 // bytes
	headLine = "occam head lane=%d seq=%d n=%d synced=%d hash=%064x"
)

// openHeadFile opens or creates the file. Read-only, a missing file reads as empty.
func openHeadFile(path string, readOnly bool) (*headFile, error) {
	mode := os.O_RDWR | os.O_CREATE
	if readOnly {
		mode = os.O_RDONLY
	}
	file, err := os.OpenFile(path, mode, 0o600)
	if readOnly && os.IsNotExist(err) {
		return &headFile{synced: map[int64]int64{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("store: open the ledger's head file: %w", err)
	}
	return &headFile{file: file, synced: map[int64]int64{}}, nil
}

// write stores h; durable says that the commit that made it is on the disk itself.
func (f *headFile) write(h head, durable bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if durable {
		f.synced[h.lane] = h.seq
	}
	line := fmt.Sprintf(headLine, h.lane, h.seq, h.n, f.synced[h.lane], h.hash[:])
	line = fmt.Sprintf("%s sum=%08x\n", line, crc32.ChecksumIEEE([]byte(line)))
	slot := make([]byte, headSlot)
	copy(slot, line)
	_, err := f.file.WriteAt(slot, (h.lane*2+h.seq&1)*headSlot)
	return err
}

// sync notes that everything up to h is on the disk; later writes say so.
func (f *headFile) sync(h head) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.synced[h.lane] = max(f.synced[h.lane], h.seq)
}

// read returns the newest head stored for a lane; ok is false when there is none.
func (f *headFile) read(laneNumber int64) (newest outsideHead, ok bool, err error) {
	if f.file == nil {
		return newest, false, nil
	}
	slots := make([]byte, 2*headSlot)
	n, err := f.file.ReadAt(slots, laneNumber*2*headSlot)
	if err != nil && err != io.EOF {
		return newest, false, fmt.Errorf("store: read the ledger's head file: %w", err)
	}
	for _, slot := range []string{string(slots[:min(n, headSlot)]), string(slots[min(n, headSlot):n])} {
		h, good := parseHead(slot)
		if good && h.lane == laneNumber && (!ok || h.seq > newest.seq) {
			newest, ok = h, true
		}
	}
	return newest, ok, nil
}

func parseHead(slot string) (h outsideHead, ok bool) {
	line, rest, found := strings.Cut(slot, " sum=")
	if !found {
		return h, false
	}
	var sum uint32
	var hash []byte
	if _, err := fmt.Sscanf(rest, "%08x\n", &sum); err != nil || sum != crc32.ChecksumIEEE([]byte(line)) {
		return h, false
	}
	if _, err := fmt.Sscanf(line, strings.Replace(headLine, "%064x", "%x", 1), &h.lane, &h.seq, &h.n, &h.synced, &hash); err != nil {
		return h, false
	}
	return h, copy(h.hash[:], hash) == len(h.hash)
}

// clear forgets every head, so that the next ones count although their numbers are lower.
func (f *headFile) clear() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.synced)
	return f.file.Truncate(0)
}

func (f *headFile) close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}
