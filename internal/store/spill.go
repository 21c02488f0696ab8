package store

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
)

// A spill is a file beside the process that takes the ledger's events while the database is away: an event is durable in it
// as it would be in the database. Every line holds a whole row, so that replaying it twice changes nothing: rows are told
// apart by their attempt.
type spill struct {
	file  *os.File
	limit int64 // bytes
	size  int64
	done  int64 // bytes that are in the database already
}

var errSpillFull = errors.New("the spill file is full")

// openSpill opens or creates the file. What a dead process left in it is replayed first.
func openSpill(path string, limit int64) (*spill, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: open the spill file: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store: open the spill file: %w", err), file.Close())
	}
	return &spill{file: file, limit: limit, size: info.Size()}, nil
}

// holds reports whether there are events that the database does not have yet.
func (p *spill) holds() bool { return p.done < p.size }

// append writes events, all or none, and makes them durable.
func (p *spill) append(batch []*event) error {
	var lines []byte
	for _, e := range batch {
		if e.row == nil {
			continue // an example may be missed
		}
		line, err := json.Marshal(e.spillLine())
		if err != nil {
			return fmt.Errorf("store: spill: %w", err)
		}
		lines = fmt.Appendf(lines, "%08x %s\n", crc32.ChecksumIEEE(line), line)
	}
	if p.size+int64(len(lines)) > p.limit {
		return fmt.Errorf("%w: %d bytes", errSpillFull, p.limit)
	}
	if _, err := p.file.WriteAt(lines, p.size); err != nil {
		return fmt.Errorf("store: spill: %w", err)
	}
	if err := p.file.Sync(); err != nil {
		return fmt.Errorf("%w: spill: %w", errUntrusted, err)
	}
	p.size += int64(len(lines))
	return nil
}

// spillLine returns the event with both halves of its row, whatever its kind.
func (e *event) spillLine() exportLine {
	both := entry{kind: kindFree, n: e.n, row: e.row}
	l := both.line()
	l.Kind, l.Hash = string(rune(e.kind)), ""
	return l
}

// spilled undoes spillLine.
func spilled(l *exportLine) (*event, error) {
	if len(l.Kind) != 1 || l.Intent == nil || l.Outcome == nil {
		return nil, errors.New("a part is missing")
	}
	e := &event{kind: kind(l.Kind[0]), row: &row{}}
	l.fill(e.row)
	if e.kind != kindIntent && e.kind != kindOutcome && e.kind != kindFree {
		return nil, fmt.Errorf("unknown kind %q", l.Kind)
	}
	return e, nil
}

// next reads up to limit events that the database does not have yet, and where the last one ends. Lines that are damaged are
// counted and passed over: a torn one at the end was never answered for.
func (p *spill) next(limit int) (batch []*event, end int64, damaged int, err error) {
	end = p.done
	lines := bufio.NewReaderSize(io.NewSectionReader(p.file, p.done, p.size-p.done), 1<<16)
	for len(batch) < limit && end < p.size {
		line, err := lines.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return nil, 0, 0, fmt.Errorf("store: read the spill file: %w", err)
		}
		end += int64(len(line))
		e, err := parseSpill(line)
		if err != nil {
			damaged++
			continue
		}
		batch = append(batch, e)
	}
	return batch, end, damaged, nil
}

func parseSpill(line []byte) (*event, error) {
	sum, text, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if !ok || err != nil || crc32.ChecksumIEEE(text) != uint32(want) {
		return nil, errors.New("damaged")
	}
	var l exportLine
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, err
	}
	return spilled(&l)
}

// replayed notes that everything before end is in the database. Once that is all, the file is emptied.
func (p *spill) replayed(end int64) error {
	p.done = end
	if p.holds() {
		return nil
	}
	p.done, p.size = 0, 0
	if err := p.file.Truncate(0); err != nil {
		return fmt.Errorf("store: empty the spill file: %w", err)
	}
	return nil
}

func (p *spill) close() error { return p.file.Close() }
