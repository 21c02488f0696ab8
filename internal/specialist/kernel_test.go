package specialist

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestKernelsAgreeToTheBit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := 0; n <= 200; n += lanes {
		a, b, bytes := make([]float32, n), make([]float32, n), make([]int8, n)
		for i := range a {
			a[i], b[i], bytes[i] = rng.Float32()-.5, rng.Float32()*100, int8(rng.IntN(256))
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
		addScaledBytes(got, bytes, .3)
		addScaledBytesGeneric(want, bytes, .3)
		if !slices.Equal(got, want) {
			t.Errorf("addScaledBytes of %d: %v, want %v", n, got, want)
		}
	}
}
