// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// ErrSymbolsHidden says that the kernel shows symbol names without their addresses.
var ErrSymbolsHidden = errors.New("addresses in /proc/kallsyms are hidden: run as root or with CAP_SYSLOG, and with sysctl kernel.kptr_restrict at 0 or 1")

// Symbols are the addresses of the kernel's functions, its modules' included.
type Symbols struct {
	byAddress []symbol
	first     map[string]int32 // name without compiler suffix → index of the first of that name
	next      []int32          // index → that of the next one of that name; none: -1
}

type symbol struct {
	address uint64
	name    string
	module  string
}

// Range is a function's or a function part's code, End excluded.
type Range struct {
	Start, End uint64
	Name       string // with suffix, as the symbol table has it
}

// symbolTable is /proc/kallsyms, kept open from the first reading on: whether addresses are shown is decided when it is opened
// (kallsyms_open), and the privilege may have been given up when it is read again.
var symbolTable struct {
	sync.Mutex
	file *os.File
}

// LoadSymbols reads /proc/kallsyms.
func LoadSymbols() (*Symbols, error) {
	symbolTable.Lock()
	defer symbolTable.Unlock()
	if symbolTable.file == nil {
		f, err := os.Open("/proc/kallsyms")
		if err != nil {
			return nil, fmt.Errorf("open symbol table (a kernel without CONFIG_KALLSYMS has none): %w", err)
		}
		symbolTable.file = f
	}
	if _, err := symbolTable.file.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read symbol table anew: %w", err)
	}
	return ParseSymbols(symbolTable.file)
}

// ParseSymbols reads a symbol table in the form of /proc/kallsyms.
func ParseSymbols(r io.Reader) (*Symbols, error) {
	s := &Symbols{}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), 1<<20)
	line, hidden := 0, 0
	for lines.Scan() {
		line++
		at, rest, _ := bytes.Cut(lines.Bytes(), []byte{' '})
		if len(rest) < 3 || rest[1] != ' ' {
			return nil, fmt.Errorf("parse symbol table: line %d: want address, type and name, have %q", line, lines.Text())
		}
		// Only code can free a packet: t and T, and weak definitions.
		switch rest[0] {
		case 't', 'T', 'w', 'W':
		default:
			continue
		}
		address, err := strconv.ParseUint(string(at), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("parse symbol table: line %d: %w", line, err)
		}
		if address == 0 {
			hidden++
			continue
		}
		name, module, _ := bytes.Cut(rest[2:], []byte{'\t'})
		sym := symbol{address: address, name: string(name)}
		if len(module) > 0 {
			sym.module = string(bytes.Trim(module, "[]"))
		}
		s.byAddress = append(s.byAddress, sym)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read symbol table: %w", err)
	}
	if len(s.byAddress) == 0 {
		if hidden > 0 {
			return nil, ErrSymbolsHidden
		}
		return nil, errors.New("/proc/kallsyms lists no function: a container may have masked it; give it the host's, or run on the host")
	}
	slices.SortStableFunc(s.byAddress, func(a, b symbol) int { return cmp.Compare(a.address, b.address) })
	s.first, s.next = make(map[string]int32, len(s.byAddress)), make([]int32, len(s.byAddress))
	for i := len(s.byAddress) - 1; i >= 0; i-- {
		name := baseName(s.byAddress[i].name)
		if next, ok := s.first[name]; ok {
			s.next[i] = next
		} else {
			s.next[i] = -1
		}
		s.first[name] = int32(i)
	}
	return s, nil
}

// baseName cuts what compilers append to the names of parts and clones of a function: .cold, .part.0,
// .isra.0, .constprop.0 and the like.
func baseName(name string) string {
	if i := strings.IndexByte(name, '.'); i > 0 {
		return name[:i]
	}
	return name
}

// Function gives the code of the function of that name: its main body and the parts that the
// compiler has split off or cloned. There can be several functions of one name. A symbol's size is
// taken to reach to the next symbol, because the table has no sizes; padding belongs to the one before.
func (s *Symbols) Function(name string) []Range {
	var out []Range
	i, ok := s.first[name]
	for ; ok && i >= 0; i = s.next[i] {
		start := s.byAddress[i].address
		end := s.end(int(i))
		if n := len(out); n > 0 && out[n-1].Start == start {
			continue // an alias of the one before
		}
		if end > start {
			out = append(out, Range{start, end, s.byAddress[i].name})
		}
	}
	return out
}

// end is the address of the next symbol, unless that lies in another module or so far away that it
// is not in the same text section.
func (s *Symbols) end(i int) uint64 {
	const largestFunction = 1 << 20
	at := s.byAddress[i]
	for _, next := range s.byAddress[i+1:] {
		if next.address == at.address {
			continue
		}
		if next.module != at.module || next.address-at.address > largestFunction {
			break
		}
		return next.address
	}
	// The last function of its section: a page is more than any of ours has.
	return at.address + 4096
}

// Name says where an address lies, as function+0xoffset; an address outside the table is written as
// a bare number.
func (s *Symbols) Name(address uint64) string {
	if s == nil {
		return fmt.Sprintf("0x%x", address)
	}
	i, found := slices.BinarySearchFunc(s.byAddress, address, func(a symbol, t uint64) int { return cmp.Compare(a.address, t) })
	if !found {
		i--
	}
	if i < 0 {
		return fmt.Sprintf("0x%x", address)
	}
	// The first name at an address is the one that the linker put there first.
	for i > 0 && s.byAddress[i-1].address == s.byAddress[i].address {
		i--
	}
	if address >= s.end(i) {
		return fmt.Sprintf("0x%x", address)
	}
	sym := s.byAddress[i]
	name := fmt.Sprintf("%s+0x%x", sym.name, address-sym.address)
	if sym.module != "" {
		name += " [" + sym.module + "]"
	}
	return name
}

// LateSymbols know the functions of modules too that were loaded after the symbols were first read, as
// the firewall's are with its first rule. They are for one caller at a time.
type LateSymbols struct {
	known *Symbols
	asked map[uint64]bool // addresses for which the table was read anew
}

// NewLateSymbols begins with what is known already; nil: nothing can be read, and addresses have no names.
func NewLateSymbols(known *Symbols) *LateSymbols {
	return &LateSymbols{known: known, asked: map[uint64]bool{}}
}

// Name is that of Symbols.
func (l *LateSymbols) Name(address uint64) string {
	name := l.known.Name(address)
	if l.known == nil || !strings.HasPrefix(name, "0x") || l.asked[address] {
		return name
	}
	l.asked[address] = true
	// A table that could be read before and cannot now leaves the address without a name.
	if fresh, err := LoadSymbols(); err == nil {
		l.known = fresh
	}
	return l.known.Name(address)
}
