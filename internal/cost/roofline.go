package cost

import "strings"

// gpuSpec is what a GPU can do at most: dense half-precision arithmetic and memory traffic.
type gpuSpec struct {
	name   string
	tflops float64 // 10^12 floating-point operations a second
	gbps   float64 // 10^9 bytes a second
}

// gpuSpecs are the makers' data-sheet figures, from memory; docs/economics.md shows the throughput that follows.
var gpuSpecs = []gpuSpec{
	{name: "A10G", tflops: 70, gbps: 600},
	{name: "A100", tflops: 312, gbps: 2039},
	{name: "A10", tflops: 125, gbps: 600},
	{name: "L40S", tflops: 362, gbps: 864},
	{name: "L4", tflops: 121, gbps: 300},
	{name: "H100", tflops: 989, gbps: 3350},
	{name: "RTX 4090", tflops: 165, gbps: 1008},
}

// llamaSpec is the shape of a hosted specialist.
type llamaSpec struct {
	name       string
	params     float64 // all of them: what one decoding step reads from memory
	bodyParams float64 // without the embedding table: what a prompt token multiplies with
	kvBytes    float64 // key-value cache of one token
}

var (
	llama1B = llamaSpec{name: "Llama 3.2 1B", params: 1.24e9, bodyParams: 0.97e9, kvBytes: 32 << 10}
	llama3B = llamaSpec{name: "Llama 3.2 3B", params: 3.21e9, bodyParams: 2.82e9, kvBytes: 112 << 10}
)

// gpuNamed finds the data of the GPU of a price row such as "A10G 24GB".
func gpuNamed(gpu string) (gpuSpec, bool) {
	for _, g := range gpuSpecs {
		if gpu == g.name || strings.HasPrefix(gpu, g.name+" ") {
			return g, true
		}
	}
	return gpuSpec{}, false
}

// perSecond is the roofline estimate of the requests a second that one GPU serves when it is saturated, in BF16: prompt
// tokens cost arithmetic (2 operations per parameter), decoding steps read the weights and every key-value cache of the
// batch. mfu is the share of peak arithmetic reached; the share of peak memory traffic is taken as 0.375 + 0.75·mfu, which
// is 0.60 at 30 % and 0.75 at 50 %. It is an estimate of the best case, not a measurement, and says nothing of latency.
func (g gpuSpec) perSecond(m llamaSpec, in, out, mfu, batch float64) float64 {
	prefill := 2 * m.bodyParams * in / (g.tflops * 1e12 * mfu)
	memory := (2*m.params + batch*m.kvBytes*(in+out/2)) / (g.gbps * 1e9 * (0.375 + 0.75*mfu))
	arithmetic := 2 * m.params * batch / (g.tflops * 1e12 * mfu)
	return 1 / (prefill + out*max(memory, arithmetic)/batch)
}
