//go:build !amd64

package specialist

func addScaled(dst, src []float32, a float32) { addScaledGeneric(dst, src, a) }

func dot(a, b []float32) float32 { return dotGeneric(a, b) }

func sumRows(dst, table []float32, rows []uint32, values []float32) {
	sumRowsGeneric(dst, table, rows, values)
}

func addToRows(table []float32, rows []uint32, values []float32, src []float32) {
	addToRowsGeneric(table, rows, values, src)
}

func sumLanes(dst *[lanes]float32, table []float32, rows []uint32, values []float32) {
	sumLanesGeneric(dst, table, rows, values)
}

func addLanes(table []float32, rows []uint32, values []float32, src *[lanes]float32) {
	addLanesGeneric(table, rows, values, src)
}

func sumByteRows(dst []float32, table []int8, scale []float32, vector []entry) {
	sumByteRowsGeneric(dst, table, scale, vector)
}

func (v *vocabulary) lookUp(found []sighting, features []feature) (known int) {
	return v.lookUpGeneric(found, features)
}
