package engine

// A Target is one model at one upstream.
type Target struct {
	Upstream  *Upstream
	Model     string // the upstream's name of the model
	MaxOutput int64  // most tokens it writes when a request sets no limit; 0: unknown
}

// A Route is where a model's requests go: the first target, and the others in order when it fails before its first byte.
type Route struct {
	Targets []Target
}
