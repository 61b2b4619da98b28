// SPDX-License-Identifier: Apache-2.0

// Package replay feeds capture files through the wire program, so that a capture is judged by the very
// instructions that judge a live interface, and reads the result from the same maps.
//
// # Many packets a system call
//
// BPF_PROG_TEST_RUN takes one packet and costs 1 to 3 µs, twenty times what the program itself needs.
// The packets are therefore laid out behind one another in one buffer, and a driver of some thirty
// instructions goes from one to the next: it moves data, data_meta and data_end of the XDP context
// and calls xdp_ingress, compiled as it is, as a function. The verifier checks it once, as a global
// function. To the wire program each packet looks as if it had come alone, with struct offline_meta
// as its metadata. Where the kernel refuses the driver, packets go one by one.
//
// # Two at once
//
// While one goroutine reads the file and lays packets out, another one is in the kernel with those laid out before, which
// takes two thirds of the time.
//
// # Exactly once
//
// A signal makes BPF_PROG_TEST_RUN fail with EINTR, and the Go runtime sends signals. With one
// repetition, kernels since 5.13 look for signals only between repetitions, so never
// (bpf_test_timer_continue), and older ones only after the program has run (bpf_test_run). EINTR thus
// means that the packets were counted, and the call must not be repeated. The wire program gives each
// packet one class, so their sum proves it: Run compares it with what was fed.
package replay
