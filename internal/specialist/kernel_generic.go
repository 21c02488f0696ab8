package specialist

// lanes is the unit of length of every vector that a kernel works on.
const lanes = 8

// The explicit conversions keep the compiler from fusing a multiplication with an addition, which would round otherwise
// than the vector kernels do: a model must come out the same on every processor.

func addScaledGeneric(dst, src []float32, a float32) {
	src = src[:len(dst)]
	for i := range dst {
		dst[i] += float32(a * src[i])
	}
}

func dotGeneric(a, b []float32) float32 {
	var sum [2 * lanes]float32
	b = b[:len(a)]
	for i := range a {
		at := i % (2 * lanes)
		if i >= len(a)-len(a)%(2*lanes) {
			at = i % lanes // the last half block goes to the first lanes
		}
		sum[at] += float32(a[i] * b[i])
	}
	for k := range lanes {
		sum[k] += sum[k+lanes]
	}
	for width := lanes / 2; width > 0; width /= 2 {
		for k := range width {
			sum[k] += sum[k+width]
		}
	}
	return sum[0]
}

func sumRowsGeneric(dst, table []float32, rows []uint32, values []float32) {
	clear(dst)
	for j, r := range rows {
		addScaledGeneric(dst, table[int(r)*embedDim:][:embedDim], values[j])
	}
}

func addToRowsGeneric(table []float32, rows []uint32, values []float32, src []float32) {
	for j, r := range rows {
		addScaledGeneric(table[int(r)*embedDim:][:embedDim], src, values[j])
	}
}

// sumLanesGeneric sums in four parts, as the vector kernel does to hide the latency of an addition.
func sumLanesGeneric(dst *[lanes]float32, table []float32, rows []uint32, values []float32) {
	var sum [4][lanes]float32
	for j, r := range rows {
		part := &sum[j%4]
		for k, x := range table[int(r)*lanes:][:lanes] {
			part[k] += float32(values[j] * x)
		}
	}
	for k := range dst {
		dst[k] = (sum[0][k] + sum[1][k]) + (sum[2][k] + sum[3][k])
	}
}

func addLanesGeneric(table []float32, rows []uint32, values []float32, src *[lanes]float32) {
	for j, r := range rows {
		row := table[int(r)*lanes:][:lanes]
		for k := range row {
			row[k] += float32(values[j] * src[k])
		}
	}
}

func sumByteRowsGeneric(dst []float32, table []int8, scale []float32, vector []entry) {
	for _, e := range vector {
		a := e.value * scale[e.row]
		for k, b := range table[int(e.row)*len(dst):][:len(dst)] {
			dst[k] += float32(a * float32(b))
		}
	}
}

func (v *vocabulary) lookUpGeneric(found []sighting, features []feature) (known int) {
	for i := range features {
		found[i] = sighting{row: v.row(features[i].hash)}
		if v.has(features[i].hash) {
			found[i].known = 1
			known++
		}
	}
	return known
}
