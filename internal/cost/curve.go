package cost

import "math"

// A Curve is what a plan costs a month, in dollars, as a function of the volume: a fixed part, a part for each request,
// and servers bought as a staircase.
type Curve struct {
	Fixed       float64 // a month
	PerRequest  float64
	Server      float64 // one server, a month
	ServersEach float64 // servers one request a month needs: 1 / (requests a month that one server carries); 0: no servers
	Spare       float64 // servers on top of the needed ones
}

// Servers is the number of servers at a volume (requests a month): at least one where the plan has servers at all.
func (c Curve) Servers(volume float64) float64 {
	if c.ServersEach == 0 {
		return 0
	}
	// The small tolerance keeps a volume that fills n servers exactly from being rounded up to n+1.
	return math.Max(1, math.Ceil(volume*c.ServersEach-1e-9)) + c.Spare
}

// At is the cost of a month at a volume.
func (c Curve) At(volume float64) float64 {
	return c.Fixed + c.PerRequest*volume + c.Server*c.Servers(volume)
}

// BreakEven is the smallest volume at which the plan costs no more than the reference, and false where there is none. The
// reference must have no servers. Because servers come as a staircase, a plan can be dearer again for a while after each
// further step; from the volume returned on, it is the first time that it is not.
//
// On the step of n servers, which ends at n/ServersEach requests, the curves meet at x(n) = (Fixed + Server·(n+Spare) −
// ref.Fixed) / (ref.PerRequest − PerRequest). The first n with x(n) ≤ n/ServersEach therefore has a closed form.
func (c Curve) BreakEven(ref Curve) (volume float64, ok bool) {
	if c.At(0) <= ref.At(0) {
		return 0, true
	}
	perRequest := ref.PerRequest - c.PerRequest
	if perRequest <= 0 {
		return 0, false
	}
	if c.ServersEach == 0 {
		return (c.Fixed - ref.Fixed) / perRequest, true
	}
	base := (c.Fixed + c.Server*c.Spare - ref.Fixed) / perRequest
	step, reach := c.Server/perRequest, 1/c.ServersEach // requests that pay for a server, requests that fill it
	n := 1.0
	if base+step > reach*(1+1e-12) {
		if step >= reach {
			return 0, false // a full server costs more than it saves
		}
		n = math.Ceil(base/(reach-step) - 1e-9)
	}
	return math.Max(base+step*n, (n-1)*reach), true
}
