//go:build !amd64

package specialist

func addScaled(dst, src []float32, a float32) { addScaledGeneric(dst, src, a) }

func addScaledBytes(dst []float32, src []int8, a float32) { addScaledBytesGeneric(dst, src, a) }

func dot(a, b []float32) float32 { return dotGeneric(a, b) }
