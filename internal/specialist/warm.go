package specialist

import "fmt"

// takeOver has a training run fit nothing that an earlier model of the same fields knows: how its heads are scaled and its
// confidences calibrated. One pass is left, which uses every example.
func (t *trainer) takeOver(earlier *Model) error {
	for i, f := range t.fields {
		from := -1
		for k, old := range earlier.fields {
			if old.Name == f.Name && old.Kind == f.Kind && old.Nullable == f.Nullable {
				from = k
			}
		}
		switch {
		case from < 0 || len(earlier.fields) != len(t.fields):
			return fmt.Errorf("specialist: the earlier model has no field %q of this kind, or others beside; train without it", f.Name)
		case t.heads[i].Count > 0 && earlier.heads[from].Mix == mixture{}:
			return fmt.Errorf("specialist: the earlier model's file is older than warm starts; train without it once")
		}
		h, old := &t.heads[i], &earlier.heads[from]
		h.Temperature, h.Platt, h.Mix = old.Temperature, old.Platt, old.Mix
	}
	for i := range t.fold {
		t.fold[i] = 1
	}
	t.earlier, t.final = earlier, 0
	t.mixColumns()
	return nil
}

// calibrated is the calibration of the final weights.
func (t *trainer) calibrated() calibrated {
	if t.earlier != nil {
		return calibrated{heads: t.heads, joint: t.earlier.joint, scope: t.earlier.scope}
	}
	return t.calibrate(t.scored)
}
