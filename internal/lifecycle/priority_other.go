//go:build !linux

package lifecycle

// lowerPriority does nothing where priorities are those of whole processes.
func lowerPriority() {}
