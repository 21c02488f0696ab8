package lifecycle

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"slices"
	"strings"

	"occam/internal/calibration"
	"occam/internal/specialist"
	"occam/internal/task"
)

const (
	// memoryPerByte is what training in memory takes at most, for each byte of the data file.
	memoryPerByte = 64
	maxHeld       = 20_000 // rows of a large file that calibrate, and rows that test
	maxBadLines   = 1000
)

// A DataFile is a file of labelled examples, one JSON object a line, of which only the places of the lines are kept: about
// 20 bytes a row, and while it is opened 100.
type DataFile struct {
	Problems   []task.Problem // lines that cannot be used
	Duplicates int            // lines that repeat an earlier text and its labels

	name  string
	file  *os.File
	lines []place
	task.Inference
}

// A place is where a row stands and where it falls in the split.
type place struct {
	offset int64
	length int32
	number int32
	draw   float32
}

// Large reports whether a data file is too large to train on in so many bytes of memory.
func Large(path string, memory int64) (bool, error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, fmt.Errorf("the data cannot be read: %w", err)
	}
	return info.Size() > memory/memoryPerByte, nil
}

// OpenData goes through a data file once. The caller closes it.
func OpenData(path string, seed uint64, progress func(stage string, done, total int)) (*DataFile, error) {
	if strings.HasSuffix(strings.ToLower(path), ".csv") {
		return nil, fmt.Errorf("%s is too large for the memory allowed, and CSV cannot be read row by row from disk: turn it into JSON Lines, or allow more with --memory", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the data cannot be read: %w", err)
	}
	d := &DataFile{name: path, file: file}
	if err := d.scan(seed, progress); err != nil {
		_ = file.Close() // it was only read
		return nil, err
	}
	return d, nil
}

// Close closes the file; no training may run then.
func (d *DataFile) Close() error { return d.file.Close() }

func (d *DataFile) scan(seed uint64, progress func(stage string, done, total int)) error {
	info, err := d.file.Stat()
	if err != nil {
		return fmt.Errorf("the data cannot be read: %w", err)
	}
	const mb = 1 << 20
	ids, texts := map[uint64]struct{}{}, map[uint64]struct{}{}
	in := bufio.NewReaderSize(d.file, mb)
	first, err := in.Peek(512)
	if err != nil && err != io.EOF {
		return fmt.Errorf("%s cannot be read: %w", d.name, err)
	}
	start, err := task.Opening(first)
	if err != nil {
		return fmt.Errorf("%s cannot be read: %w", d.name, err)
	}
	_, _ = in.Discard(start) // it was peeked at
	offset, reported := int64(start), int64(0)
	for number := 1; ; number++ {
		line, length, err := readBounded(in)
		if err != nil && err != io.EOF {
			return fmt.Errorf("%s:%d: %w", d.name, number, err)
		}
		if length > 0 {
			d.look(place{offset: offset, length: int32(min(length, task.MaxLine+1)), number: int32(number)}, line, seed, ids, texts)
		}
		offset += length
		if offset-reported > 16*mb || err == io.EOF {
			progress("read (MB)", int(offset/mb), int(info.Size()/mb)+1)
			reported = offset
		}
		if len(d.Problems) >= maxBadLines {
			return fmt.Errorf("%s: %d lines cannot be used, the first: %s", d.name, maxBadLines, d.Problems[0])
		}
		if err == io.EOF {
			return nil
		}
	}
}

// readBounded returns the next line without its end, and how long it is with it; of a line that is too long, nil.
func readBounded(in *bufio.Reader) (line []byte, length int64, err error) {
	for {
		chunk, err := in.ReadSlice('\n')
		if length += int64(len(chunk)); length <= task.MaxLine {
			line = append(line, chunk...)
		} else {
			line = nil
		}
		if err != bufio.ErrBufferFull {
			return bytes.TrimSpace(line), length, err
		}
	}
}

var hashSeed = maphash.MakeSeed() // decides nothing but which of 2^64 hashes stands for an ID

// look remembers a line that can be used.
func (d *DataFile) look(at place, line []byte, seed uint64, ids, texts map[uint64]struct{}) {
	switch {
	case at.length > task.MaxLine:
		d.problem(at, "the line is longer than 16 MB")
		return
	case len(line) == 0:
		return
	}
	e, err := task.ParseLine(line, int(at.number))
	if err != nil {
		d.problem(at, err.Error())
		return
	}
	id := maphash.String(hashSeed, e.ID)
	if _, twice := ids[id]; twice {
		d.problem(at, fmt.Sprintf("the id %q stands on an earlier line", e.ID))
		return
	}
	ids[id] = struct{}{}
	identity := e.Identity()
	if _, twice := texts[identity]; twice {
		d.Duplicates++
		return
	}
	texts[identity] = struct{}{}
	d.Add(&e)
	at.draw = float32(task.Draw(seed, e.Text))
	d.lines = append(d.lines, at)
}

func (d *DataFile) problem(at place, reason string) {
	d.Problems = append(d.Problems, task.Problem{File: d.name, Line: int(at.number), Reason: reason})
}

// Rows is how many rows can be used.
func (d *DataFile) Rows() int { return len(d.lines) }

func (d *DataFile) read(at place) (task.Example, error) {
	line := make([]byte, at.length)
	if _, err := d.file.ReadAt(line, at.offset); err != nil && err != io.EOF {
		return task.Example{}, fmt.Errorf("%s:%d: %w", d.name, at.number, err)
	}
	e, err := task.ParseLine(bytes.TrimSpace(line), int(at.number))
	if err != nil {
		return e, fmt.Errorf("%s:%d: %w (did the file change?)", d.name, at.number, err)
	}
	return e, nil
}

// part is some rows of a data file. It is a specialist.Source.
type part struct {
	file  *DataFile
	lines []place
}

var _ specialist.Source = part{}

func (p part) Len() int                       { return len(p.lines) }
func (p part) At(i int) (task.Example, error) { return p.file.read(p.lines[i]) }

// all reads the rows that have every label.
func (p part) all(fields []task.Field) ([]task.Example, error) {
	examples := make([]task.Example, 0, len(p.lines))
	for i := range p.lines {
		e, err := p.At(i)
		if err != nil {
			return nil, err
		}
		examples = append(examples, e)
	}
	labelled, _ := partition(fields, examples)
	if problems := task.CheckLabels(fields, labelled, p.file.name); len(problems) > 0 {
		return nil, fmt.Errorf("%d labels are not allowed by the schema, the first: %s; correct the rows, or give the schema the values that it lacks", len(problems), problems[0])
	}
	return labelled, nil
}

// deal splits the rows: by their draw, as task.SplitExamples does, but at most maxHeld to calibrate and as many to test.
func (d *DataFile) deal() (train, calibrating, testing part) {
	slices.SortStableFunc(d.lines, func(a, b place) int { return cmp.Compare(a.draw, b.draw) })
	test := min(int(testShare*float64(len(d.lines))), maxHeld)
	held := test + min(int(calibrationShare*float64(len(d.lines))), maxHeld)
	for _, border := range []*int{&test, &held} { // near-duplicates have one draw, and stay on one side
		for *border > 0 && *border < len(d.lines) && d.lines[*border].draw == d.lines[*border-1].draw {
			*border++
		}
	}
	return part{d, d.lines[held:]}, part{d, d.lines[test:held]}, part{d, d.lines[:test]}
}

// TrainLarge is Train for a data file that does not fit memory, which gets about the given number of bytes. The weights learn
// as specialist.TrainStream says; the certificate is held out, on at most 20,000 rows.
func TrainLarge(ctx context.Context, opt TrainOptions, data *DataFile, memory int64) (*Trained, specialist.StreamUse, error) {
	started := opt.Now()
	if opt.Progress == nil {
		opt.Progress = func(string, int, int) {}
	}
	t := &Trained{Task: opt.Task, TrainedAt: started.UTC(), Counts: Counts{Duplicates: data.Duplicates}}
	train, calibrating, testing := data.deal()
	if train.Len() < minLabelled || calibrating.Len() == 0 || testing.Len() == 0 {
		return nil, specialist.StreamUse{}, errAlike
	}
	options := opt.specialist("train")
	options.Memory = memory / 2 // for the sample; the rest is the weights', the blocks' in flight and the garbage collector's
	model, use, err := specialist.TrainStream(ctx, opt.Task.Fields, train, options)
	if err != nil {
		return nil, use, err
	}
	calibrationRows, err := calibrating.all(opt.Task.Fields)
	if err != nil {
		return nil, use, err
	}
	testRows, err := testing.all(opt.Task.Fields)
	if err != nil {
		return nil, use, err
	}
	if len(calibrationRows) == 0 || len(testRows) == 0 {
		return nil, use, fmt.Errorf("of the rows held out %d to calibrate and %d to test have every label: label more of the file", len(calibrationRows), len(testRows))
	}
	t.Model = model
	t.Counts.Train, t.Counts.Calibration, t.Counts.Test = train.Len(), len(calibrationRows), len(testRows)
	opt.Examples = calibrationRows // whose labels the certificate names the source of
	if err := t.certifyHeldOut(opt, calibrationRows, testRows); err != nil {
		return nil, use, err
	}
	t.Seconds = opt.Now().Sub(started).Seconds()
	return t, use, nil
}

// certifyHeldOut certifies on rows that the model never saw, with thresholds from others, on which it is then measured.
func (t *Trained) certifyHeldOut(opt TrainOptions, calibrationRows, testRows []task.Example) error {
	test, held := predictAll(t.Model, testRows), predictAll(t.Model, calibrationRows)
	floor := floorOf(test)
	scores := gated(test, floor)
	t.after = &reached{rows: calibrationRows, others: testRows, scores: scores}
	if err := t.certify(opt, 1, calibration.Grid(scores, gridSize), held, floor, calibration.HeldOut); err != nil {
		return err
	}
	t.evaluate(opt, testRows)
	t.Curve = calibration.Curve(outcomesOf(opt.Task.Fields, test, testRows, floor), gridSize)
	return nil
}
