// SPDX-License-Identifier: Apache-2.0

package record

// SetHeldMax lowers what a snapshot may take, until restore is called.
func SetHeldMax(n int64) (restore func()) {
	before := heldMax
	heldMax = n
	return func() { heldMax = before }
}
