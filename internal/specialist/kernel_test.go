package specialist

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestKernelsAgreeToTheBit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := 0; n <= 200; n += lanes {
		a, b := make([]float32, n), make([]float32, n)
		for i := range a {
			a[i], b[i] = rng.Float32()-.5, rng.Float32()*100
		}
		if got, want := dot(a, b), dotGeneric(a, b); got != want {
			t.Errorf("dot of %d: %v, want %v", n, got, want)
		}
		got, want := slices.Clone(a), slices.Clone(a)
		addScaled(got, b, 1.7)
		addScaledGeneric(want, b, 1.7)
		if !slices.Equal(got, want) {
			t.Errorf("addScaled of %d: %v, want %v", n, got, want)
		}
	}
}

func TestRowKernelsAgreeToTheBit(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	const tableRows = 50
	table := make([]float32, tableRows*embedDim)
	for i := range table {
		table[i] = rng.Float32() - .5
	}
	for n := range 40 {
		rows, values := make([]uint32, n), make([]float32, n)
		for j := range rows {
			rows[j], values[j] = rng.Uint32N(tableRows), rng.Float32()-.5
		}
		got, want := make([]float32, embedDim), make([]float32, embedDim)
		sumRows(got, table, rows, values)
		sumRowsGeneric(want, table, rows, values)
		if !slices.Equal(got, want) {
			t.Errorf("sum of %d rows: %v, want %v", n, got, want)
		}
		moved, wanted := slices.Clone(table), slices.Clone(table)
		addToRows(moved, rows, values, want)
		addToRowsGeneric(wanted, rows, values, want)
		if !slices.Equal(moved, wanted) {
			t.Errorf("adding to %d rows differs", n)
		}
	}
}

func TestLaneKernelsAgreeToTheBit(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	const tableRows = 50
	table := make([]float32, tableRows*lanes)
	for i := range table {
		table[i] = rng.Float32() - .5
	}
	for n := range 40 {
		rows, values := make([]uint32, n), make([]float32, n)
		for j := range rows {
			rows[j], values[j] = rng.Uint32N(tableRows), rng.Float32()-.5
		}
		var got, want [lanes]float32
		sumLanes(&got, table, rows, values)
		sumLanesGeneric(&want, table, rows, values)
		if got != want {
			t.Errorf("sum of %d rows: %v, want %v", n, got, want)
		}
		moved, wanted := slices.Clone(table), slices.Clone(table)
		addLanes(moved, rows, values, &want)
		addLanesGeneric(wanted, rows, values, &want)
		if !slices.Equal(moved, wanted) {
			t.Errorf("adding to %d rows differs", n)
		}
	}
}

func TestByteRowKernelsAgreeToTheBit(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	const tableRows = 50
	for stride := 0; stride <= 200; stride += lanes {
		table, scale, bias := make([]int8, tableRows*stride), make([]float32, tableRows), make([]float32, stride)
		for i := range table {
			table[i] = int8(rng.IntN(256))
		}
		for i := range scale {
			scale[i] = rng.Float32()
		}
		for i := range bias {
			bias[i] = rng.Float32()
		}
		for n := range 40 {
			vector := make([]entry, n)
			for j := range vector {
				vector[j] = entry{rng.Uint32N(tableRows), rng.Float32() - .5}
			}
			got, want := slices.Clone(bias), slices.Clone(bias)
			sumByteRows(got, table, scale, vector)
			sumByteRowsGeneric(want, table, scale, vector)
			if !slices.Equal(got, want) {
				t.Fatalf("%d rows of %d bytes: %v, want %v", n, stride, got, want)
			}
		}
	}
}
