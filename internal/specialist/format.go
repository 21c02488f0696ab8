package specialist

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"unsafe"

	"occam/internal/task"
)

// The layout is described in docs/file_format.md.
const (
	formatVersion = 1
	headerSize    = 64
	entrySize     = 24
	alignment     = 64
	maxSections   = 64
)

var (
	magic      = [8]byte{'O', 'C', 'C', 'A', 'M', 'S', 'P', 0x1a}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Sections in file order. Everything but the last two decides answers and is hashed. sectionKept is there only after Keep.
const (
	sectionDescription = "desc"
	sectionIDF         = "idf "
	sectionSeen        = "seen"
	sectionWeights     = "wght"
	sectionScale       = "scal"
	sectionBias        = "bias"
	sectionSpans       = "span"
	sectionMeta        = "meta"
	sectionKept        = "exmp"
)

// description is the JSON section: all that is not bulk.
type description struct {
	Score   string       `json:"score"`
	Fields  []task.Field `json:"fields"`
	Bits    uint         `json:"row_bits"`
	Columns int          `json:"columns"`
	Stride  int          `json:"stride"`
	Heads   []head       `json:"heads"`
	Spans   []*spanRules `json:"spans"`
	Joint   platt        `json:"joint"`
	Scope   scope        `json:"scope"`
}

type section struct {
	name string
	data []byte
}

// sections lists the hashed sections of a model.
func (m *Model) sections() []section {
	d := description{
		Score: scoreDefinition, Fields: m.fields, Bits: m.vocab.bits, Columns: m.linear.columns, Stride: m.linear.stride,
		Heads: m.heads, Joint: m.joint, Scope: m.scope, Spans: make([]*spanRules, len(m.spans)),
	}
	var spans []float32
	for i, r := range m.spans {
		if r != nil {
			d.Spans[i] = &r.rules
			spans = append(spans, r.weights...)
		}
	}
	desc, err := json.Marshal(d)
	if err != nil {
		panic(fmt.Sprintf("specialist: a trained model does not encode: %v", err)) // finite numbers and strings only
	}
	return []section{
		{sectionDescription, desc},
		{sectionIDF, m.vocab.idf},
		{sectionSeen, bytesOf(m.vocab.seen)},
		{sectionWeights, bytesOf(m.linear.weights)},
		{sectionScale, bytesOf(m.linear.scale)},
		{sectionBias, bytesOf(m.linear.bias)},
		{sectionSpans, bytesOf(spans)},
	}
}

// seal computes the model's hash.
func (m *Model) seal() { m.hash = hex.EncodeToString(hashSections(m.sections())) }

func hashSections(sections []section) []byte {
	h := sha256.New()
	for _, s := range sections {
		var length [8]byte
		binary.LittleEndian.PutUint64(length[:], uint64(len(s.data)))
		h.Write([]byte(s.name))
		h.Write(length[:])
		h.Write(s.data)
	}
	return h.Sum(nil)
}

// Encode returns the model file. meta is the caller's own JSON (the task's definition, its certificate, a training report);
// it is covered by the file's checksum, not by Hash.
func (m *Model) Encode(meta json.RawMessage) []byte {
	sections := append(m.sections(), section{sectionMeta, meta})
	if m.kept != nil {
		sections = append(sections, section{sectionKept, m.kept.encoded})
	}
	size := headerSize + entrySize*len(sections)
	for _, s := range sections {
		size = align(size) + len(s.data)
	}
	out := make([]byte, size)
	copy(out, magic[:])
	binary.LittleEndian.PutUint32(out[8:], formatVersion)
	binary.LittleEndian.PutUint32(out[12:], uint32(len(sections)))
	binary.LittleEndian.PutUint64(out[16:], uint64(size))
	hash, _ := hex.DecodeString(m.hash) // seal wrote it
	copy(out[32:], hash)
	at := headerSize + entrySize*len(sections)
	for i, s := range sections {
		at = align(at)
		entry := out[headerSize+entrySize*i:]
		copy(entry, s.name)
		binary.LittleEndian.PutUint64(entry[8:], uint64(at))
		binary.LittleEndian.PutUint64(entry[16:], uint64(len(s.data)))
		at += copy(out[at:], s.data)
	}
	binary.LittleEndian.PutUint32(out[24:], crc32.Checksum(out[28:], castagnoli))
	return out
}

func align(n int) int { return (n + alignment - 1) &^ (alignment - 1) }

// IsModel reports whether a file that begins so is a model, whatever its version and whether it is whole.
func IsModel(data []byte) bool { return bytes.HasPrefix(data, magic[:]) }

// Decode reads a model file, which may be a read-only memory mapping: the model refers to data as long as it lives, and
// data must not change. It returns the caller's meta section too. A file that is damaged, truncated, made by a later
// version or inconsistent is an error; what Decode allocates is bounded by a small multiple of len(data).
func Decode(data []byte) (*Model, json.RawMessage, error) {
	sections, err := readSections(data)
	if err != nil {
		return nil, nil, fmt.Errorf("specialist: %w", err)
	}
	m, err := assemble(sections)
	if err != nil {
		return nil, nil, fmt.Errorf("specialist: the model file is inconsistent: %w; train the model again", err)
	}
	hash := hashSections(m.sections())
	if !bytes.Equal(hash, data[32:64]) {
		return nil, nil, errors.New("specialist: the model file's weights do not match their hash; restore the file or train again")
	}
	m.hash = hex.EncodeToString(hash)
	if encoded := sections[sectionKept]; len(encoded) > 0 {
		m.kept = &kept{encoded: encoded}
	}
	return m, sections[sectionMeta], nil
}

func readSections(data []byte) (map[string][]byte, error) {
	if len(data) < headerSize || !IsModel(data) {
		return nil, errors.New("this is no occam model file")
	}
	if version := binary.LittleEndian.Uint32(data[8:]); version != formatVersion {
		return nil, fmt.Errorf("the model file has format version %d and this program reads version %d; use a newer occam or train again", version, formatVersion)
	}
	if size := binary.LittleEndian.Uint64(data[16:]); size != uint64(len(data)) {
		return nil, fmt.Errorf("the model file should have %d bytes and has %d: it is cut off or was appended to; copy it again", size, len(data))
	}
	if sum := crc32.Checksum(data[28:], castagnoli); sum != binary.LittleEndian.Uint32(data[24:]) {
		return nil, errors.New("the model file is damaged (its checksum does not match); copy it again or train again")
	}
	count := int(binary.LittleEndian.Uint32(data[12:]))
	if count > maxSections || headerSize+entrySize*count > len(data) {
		return nil, fmt.Errorf("the model file names %d sections, which do not fit", count)
	}
	sections := make(map[string][]byte, count)
	for i := range count {
		entry := data[headerSize+entrySize*i:]
		name := string(entry[:4])
		from, length := binary.LittleEndian.Uint64(entry[8:]), binary.LittleEndian.Uint64(entry[16:])
		if from > uint64(len(data)) || length > uint64(len(data))-from || from%alignment != 0 {
			return nil, fmt.Errorf("section %q of the model file lies outside it", name)
		}
		if _, twice := sections[name]; twice {
			return nil, fmt.Errorf("section %q of the model file stands twice", name)
		}
		sections[name] = data[from : from+length : from+length]
	}
	return sections, nil
}

// assemble builds a model on top of its sections and checks that they fit together.
func assemble(sections map[string][]byte) (*Model, error) {
	var d description
	if err := json.Unmarshal(sections[sectionDescription], &d); err != nil {
		return nil, fmt.Errorf("its description: %w", err)
	}
	if d.Score != scoreDefinition {
		return nil, fmt.Errorf("its acceptance score is %q and this program computes %q", d.Score, scoreDefinition)
	}
	if d.Bits < minRowBits || d.Bits > 24 || len(d.Heads) != len(d.Fields) || len(d.Spans) != len(d.Fields) {
		return nil, errors.New("its description contradicts itself")
	}
	rows := 1 << d.Bits
	m := &Model{fields: d.Fields, heads: d.Heads, joint: d.Joint, scope: d.Scope, spans: make([]*spanRanker, len(d.Fields))}
	m.vocab = vocabulary{bits: d.Bits, idf: sections[sectionIDF], seen: viewOf[uint64](sections[sectionSeen])}
	m.vocab.words = uint64(len(m.vocab.seen) - 1)
	m.linear = linear{
		columns: d.Columns, stride: d.Stride, weights: viewOf[int8](sections[sectionWeights]),
		scale: viewOf[float32](sections[sectionScale]), bias: viewOf[float32](sections[sectionBias]),
	}
	switch n := len(m.vocab.seen); {
	case len(m.vocab.idf) != rows, n == 0, n&(n-1) != 0:
		return nil, errors.New("its vocabulary has the wrong size")
	case d.Columns < 0, d.Stride < d.Columns, d.Stride%lanes != 0, d.Stride > len(sections[sectionWeights]) && d.Stride > 0,
		len(m.linear.weights) != rows*d.Stride, len(m.linear.scale) != rows, len(m.linear.bias) != d.Columns:
		return nil, errors.New("its weights have the wrong size")
	case !finite(m.linear.scale), !finite(m.linear.bias):
		return nil, errors.New("its weights are not finite")
	}
	if err := m.checkHeads(); err != nil {
		return nil, err
	}
	return m, m.attachSpans(d.Spans, viewOf[float32](sections[sectionSpans]))
}

// checkHeads makes sure that every head's columns lie in the matrix and match its field.
func (m *Model) checkHeads() error {
	column := 0
	for i := range m.heads {
		h := &m.heads[i]
		h.values = columnValues(m.fields[i])
		isSpan := m.fields[i].Kind == task.Span
		if h.Offset != column || h.Count != len(h.values) || isSpan != (h.Count == 0) || h.Null && !m.fields[i].Nullable {
			return fmt.Errorf("field %q does not match its weights", m.fields[i].Name)
		}
		if !(h.Temperature > 0) || math.IsInf(h.Temperature, 0) {
			return fmt.Errorf("field %q has temperature %v", m.fields[i].Name, h.Temperature)
		}
		column += h.Count
	}
	if column != m.linear.columns {
		return errors.New("its fields and its weights do not match")
	}
	return nil
}

func (m *Model) attachSpans(rules []*spanRules, weights []float32) error {
	if !finite(weights) {
		return errors.New("its span weights are not finite")
	}
	for i, r := range rules {
		if isSpan := m.fields[i].Kind == task.Span; isSpan != (r != nil) {
			return fmt.Errorf("field %q has no span rules, or too many", m.fields[i].Name)
		} else if !isSpan {
			continue
		}
		if len(weights) < 1<<spanBits || r.Atoms > maxSpanAtoms {
			return fmt.Errorf("field %q has too few span weights", m.fields[i].Name)
		}
		m.spans[i] = &spanRanker{field: m.fields[i], rules: *r, weights: weights[:1<<spanBits]}
		weights = weights[1<<spanBits:]
	}
	if len(weights) > 0 {
		return errors.New("it has span weights of no field")
	}
	return nil
}

func finite(x []float32) bool {
	for _, v := range x {
		if v != v || v-v != 0 {
			return false
		}
	}
	return true
}

// bytesOf and viewOf look at numbers as bytes and back. The file is little-endian; so is every platform that occam is
// built for, which a test checks.
func bytesOf[T any](x []T) []byte {
	if len(x) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), len(x)*int(unsafe.Sizeof(x[0])))
}

// viewOf returns b as numbers, without a copy where b is aligned for them. Trailing bytes are dropped.
func viewOf[T any](b []byte) []T {
	var zero T
	size := int(unsafe.Sizeof(zero))
	n := len(b) / size
	if n == 0 {
		return nil
	}
	if uintptr(unsafe.Pointer(&b[0]))%uintptr(unsafe.Alignof(zero)) != 0 {
		aligned := make([]T, n)
		copy(bytesOf(aligned), b)
		return aligned
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n)
}
