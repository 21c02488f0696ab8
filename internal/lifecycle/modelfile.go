package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/drift"
	"occam/internal/specialist"
	"occam/internal/task"
)

// fileMeta is what a model file carries beside the weights.
type fileMeta struct {
	Task        taskMeta                 `json:"task"`
	Certificate *calibration.Certificate `json:"certificate"`
	Shortfall   string                   `json:"shortfall,omitempty"`
	Evaluation  Evaluation               `json:"evaluation"`
	Curve       []calibration.Point      `json:"curve,omitempty"`
	Counts      Counts                   `json:"examples"`
	TrainedAt   time.Time                `json:"trained_at"`
	Baseline    drift.Baseline           `json:"baseline,omitzero"`
	Tiers       []PlannedTier            `json:"tiers,omitempty"`
	Choice      *cascade.Choice          `json:"choice,omitempty"`
}

// taskMeta is the part of a task that its specialist depends on.
type taskMeta struct {
	Name   string       `json:"name"`
	Fields []task.Field `json:"fields"`
	Target task.Target  `json:"target"`
}

// Save writes the model file: to a temporary file beside it first, so that a crash leaves the old one whole.
func (t *Trained) Save(path string) error {
	data, err := t.encode()
	if err != nil {
		return fmt.Errorf("model file %s: %w", path, err)
	}
	return writeWhole(path, data)
}

func (t *Trained) encode() ([]byte, error) {
	meta := fileMeta{
		Task:        taskMeta{t.Task.Name, t.Task.Fields, t.Task.Target},
		Certificate: t.Certificate, Evaluation: t.Evaluation, Curve: t.Curve, Counts: t.Counts, TrainedAt: t.TrainedAt,
		Baseline: t.Baseline, Tiers: t.Tiers, Choice: t.Choice,
	}
	if t.Shortfall != nil {
		meta.Shortfall = t.Shortfall.Error()
	}
	encoded, err := json.Marshal(meta)
	if err != nil {
		return nil, err
	}
	data := t.Model.Encode(encoded)
	t.Bytes = len(data)
	return data, nil
}

// Writable says whether a model may be written to a path, before there is one: nothing but an older model is replaced.
func Writable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%s is no file: name the model file to write", path)
	case err == nil && info.Size() > 0:
		data, unmap, err := mapFile(path)
		if err != nil {
			return err
		}
		older := specialist.IsModel(data)
		if err := unmap(); err != nil {
			return err
		}
		if !older {
			return fmt.Errorf("%s is there already and is no occam model: name another file for the model, or remove it", path)
		}
	}
	probe, err := os.CreateTemp(filepath.Dir(path), ".occam-*")
	if err != nil {
		return fmt.Errorf("the model cannot be written: %w; name another place", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// writeWhole replaces a file with data, durably and at once.
func writeWhole(path string, data []byte) (err error) {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".occam-*")
	if err != nil {
		return fmt.Errorf("the model cannot be written: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("the model cannot be written: %w", errors.Join(err, temporary.Close(), os.Remove(temporary.Name())))
		}
	}()
	if _, err = temporary.Write(data); err != nil {
		return err
	}
	if err = temporary.Sync(); err != nil {
		return err
	}
	if err = temporary.Chmod(0o644); err != nil {
		return err
	}
	if err = os.Rename(temporary.Name(), path); err != nil {
		return err
	}
	return temporary.Close()
}

// A LoadedModel is a model file in use. The file stays mapped until Close; no prediction may run then.
type LoadedModel struct {
	Task        *task.Task // name, fields and target only
	Model       *specialist.Model
	Certificate *calibration.Certificate // nil: it may not answer
	Tiers       []PlannedTier            // that come after it, each with its certificate
	Choice      *cascade.Choice          // the plans that these were chosen from; nil: the file is older than plans
	Shortfall   string                   // why there is no certificate
	Evaluation  Evaluation
	Curve       []calibration.Point
	Counts      Counts
	TrainedAt   time.Time
	Baseline    drift.Baseline // zero rows: the file is older than baselines
	Path        string
	Bytes       int

	data  []byte // the whole file
	unmap func() error
}

// LoadModel maps a model file and checks it. A certificate that does not belong to these very weights is an error: it would
// promise what nobody measured.
func LoadModel(path string) (*LoadedModel, error) {
	data, unmap, err := mapFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no model file at %s: make one with `occam train --data train.jsonl --out %s`", path, path)
	}
	if err != nil {
		return nil, fmt.Errorf("the model file cannot be read: %w", err)
	}
	loaded, err := decodeModel(data)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("model file %s: %w", path, err), unmap())
	}
	loaded.Path, loaded.Bytes, loaded.unmap = path, len(data), unmap
	return loaded, nil
}

func decodeModel(data []byte) (*LoadedModel, error) {
	model, encoded, err := specialist.Decode(data)
	if err != nil {
		return nil, err
	}
	var meta fileMeta
	if err := json.Unmarshal(encoded, &meta); err != nil {
		return nil, fmt.Errorf("its description is damaged: %w", err)
	}
	if !task.SameFields(meta.Task.Fields, model.Fields()) {
		return nil, errors.New("its task and its weights are for different fields")
	}
	for _, tier := range meta.Tiers {
		if tier.Certificate == nil {
			return nil, fmt.Errorf("its tier %s has no certificate", tier.Name)
		}
	}
	loaded := &LoadedModel{
		Task:  &task.Task{Name: meta.Task.Name, Fields: model.Fields(), Target: meta.Task.Target},
		Model: model, Certificate: meta.Certificate, Shortfall: meta.Shortfall,
		Evaluation: meta.Evaluation, Curve: meta.Curve, Counts: meta.Counts, TrainedAt: meta.TrainedAt, Baseline: meta.Baseline, data: data,
		Tiers: meta.Tiers, Choice: meta.Choice,
	}
	if c := loaded.Certificate; c != nil {
		if void := c.Void(loaded.identity()); void != "" {
			return nil, fmt.Errorf("its certificate is void: %s", void)
		}
	}
	return loaded, nil
}

// identity is what is served now: the certificate must speak of exactly this.
func (l *LoadedModel) identity() calibration.Identity {
	id := calibration.Identity{Task: l.Task.Name, Specialist: l.Model.Hash(), Score: l.Model.ScoreDefinition()}
	if l.Certificate != nil { // the file holds one teacher's labels; another teacher's specialist is another file
		id.Teacher, id.PromptHash = l.Certificate.Teacher, l.Certificate.PromptHash
	}
	return id
}

// Tier is the model as a tier of its task's cascade.
func (l *LoadedModel) Tier(mode cascade.Mode) cascade.Tier {
	return cascade.Tier{Name: "linear", Mode: mode, Certificate: l.Certificate, Identity: l.identity()}
}

// Close unmaps the file.
func (l *LoadedModel) Close() error { return l.unmap() }
