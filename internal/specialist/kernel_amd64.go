package specialist

import "golang.org/x/sys/cpu"

var hasAVX2 = cpu.X86.HasAVX2

//go:noescape
func addScaledAVX2(dst, src *float32, n int, a float32)

//go:noescape
func dotAVX2(a, b *float32, n int) float32

// addScaled adds a·src to dst. The lengths are equal multiples of lanes.
func addScaled(dst, src []float32, a float32) {
	if !hasAVX2 || len(dst) == 0 {
		addScaledGeneric(dst, src, a)
		return
	}
	_ = src[len(dst)-1]
	addScaledAVX2(&dst[0], &src[0], len(dst), a)
}

// dot returns the inner product, summed in a fixed order. The lengths are equal multiples of lanes.
func dot(a, b []float32) float32 {
	if !hasAVX2 || len(a) == 0 {
		return dotGeneric(a, b)
	}
	_ = b[len(a)-1]
	return dotAVX2(&a[0], &b[0], len(a))
}

//go:noescape
func sumRowsAVX2(dst, table *float32, rows *uint32, values *float32, n int)

//go:noescape
func addToRowsAVX2(table *float32, rows *uint32, values *float32, n int, src *float32)

// sumRows sets dst to the sum of values[j] times row rows[j] of table, whose rows have embedDim numbers. Every row must
// exist: it is not checked.
func sumRows(dst, table []float32, rows []uint32, values []float32) {
	if !hasAVX2 || len(rows) == 0 {
		sumRowsGeneric(dst, table, rows, values)
		return
	}
	_, _ = dst[embedDim-1], values[len(rows)-1]
	sumRowsAVX2(&dst[0], &table[0], &rows[0], &values[0], len(rows))
}

// addToRows adds values[j] times src to row rows[j] of table. Every row must exist: it is not checked.
func addToRows(table []float32, rows []uint32, values []float32, src []float32) {
	if !hasAVX2 || len(rows) == 0 {
		addToRowsGeneric(table, rows, values, src)
		return
	}
	_, _ = src[embedDim-1], values[len(rows)-1]
	addToRowsAVX2(&table[0], &rows[0], &values[0], len(rows), &src[0])
}

//go:noescape
func sumLanesAVX2(dst, table *float32, rows *uint32, values *float32, n int)

//go:noescape
func addLanesAVX2(table *float32, rows *uint32, values *float32, n int, src *float32)

// sumLanes sets dst to the sum of values[j] times row rows[j] of table, whose rows have lanes numbers. Every row must exist:
// it is not checked.
func sumLanes(dst *[lanes]float32, table []float32, rows []uint32, values []float32) {
	if !hasAVX2 || len(rows) == 0 {
		sumLanesGeneric(dst, table, rows, values)
		return
	}
	_ = values[len(rows)-1]
	sumLanesAVX2(&dst[0], &table[0], &rows[0], &values[0], len(rows))
}

// addLanes adds values[j] times src to row rows[j] of table. Every row must exist: it is not checked.
func addLanes(table []float32, rows []uint32, values []float32, src *[lanes]float32) {
	if !hasAVX2 || len(rows) == 0 {
		addLanesGeneric(table, rows, values, src)
		return
	}
	_ = values[len(rows)-1]
	addLanesAVX2(&table[0], &rows[0], &values[0], len(rows), &src[0])
}

//go:noescape
func sumByteRowsAVX2(dst *float32, width int, table *int8, stride int, scale *float32, vector *entry, n int)

// sumByteRows adds, of every entry of vector, value·scale[row] times that row of table to dst, whose length, a multiple of lanes, is
// that of a row. Every row must exist: it is not checked.
func sumByteRows(dst []float32, table []int8, scale []float32, vector []entry) {
	if !hasAVX2 || len(vector) == 0 || len(dst) == 0 {
		sumByteRowsGeneric(dst, table, scale, vector)
		return
	}
	var sum [64]float32
	for from := 0; from < len(dst); from += len(sum) {
		width := copy(sum[:], dst[from:])
		sumByteRowsAVX2(&sum[0], width, &table[from], len(dst), &scale[0], &vector[0], len(vector))
		copy(dst[from:], sum[:])
	}
}

//go:noescape
func lookUpAVX2(found *sighting, features *feature, n int, seen *uint64, mask, shift uint64) (known int)

// lookUp fills found with what v knows of as many features, and returns how many of them training saw.
func (v *vocabulary) lookUp(found []sighting, features []feature) (known int) {
	fours := len(features) &^ 3
	if !hasAVX2 || fours == 0 {
		return v.lookUpGeneric(found, features)
	}
	_, _ = found[fours-1], v.seen[v.words]
	known = lookUpAVX2(&found[0], &features[0], fours, &v.seen[0], v.words, uint64(64-v.bits))
	return known + v.lookUpGeneric(found[fours:], features[fours:])
}
