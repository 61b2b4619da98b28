// SPDX-License-Identifier: Apache-2.0

package ike

import "container/list"

// table is a map of bounded size that gives up what was not asked for longest.
type table[K comparable, V any] struct {
	max   int
	items map[K]*list.Element
	order *list.List // front: used last
}

type item[K comparable, V any] struct {
	key   K
	value V
}

func newTable[K comparable, V any](limit int) table[K, V] {
	return table[K, V]{max: limit, items: map[K]*list.Element{}, order: list.New()}
}

func (t *table[K, V]) get(k K) (v V, ok bool) {
	e, ok := t.items[k]
	if !ok {
		return v, false
	}
	t.order.MoveToFront(e)
	return e.Value.(item[K, V]).value, true
}

// push adds a value and returns the one that had to go.
func (t *table[K, V]) push(k K, v V) (old V, full bool) {
	if len(t.items) == t.max {
		e := t.order.Back()
		gone := e.Value.(item[K, V])
		t.order.Remove(e)
		delete(t.items, gone.key)
		old, full = gone.value, true
	}
	t.items[k] = t.order.PushFront(item[K, V]{k, v})
	return old, full
}

func (t *table[K, V]) remove(k K) {
	if e, ok := t.items[k]; ok {
		t.order.Remove(e)
		delete(t.items, k)
	}
}

func (t *table[K, V]) all() []V {
	out := make([]V, 0, len(t.items))
	for e := t.order.Back(); e != nil; e = e.Prev() {
		out = append(out, e.Value.(item[K, V]).value)
	}
	return out
}
