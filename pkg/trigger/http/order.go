package http

import "slices"

// This file implements the order in which routes are tried. Which of two routes goes first is plain, but with dots it is
// no order: of two routes the newer may go first, and of three each before the next. What comes of it depends on the
// comparisons that are made. Spin keeps routes in a B-tree, so that this is the insertion into one, of the same shape.
// For example, /a/:x, /... and /a/b, added in this order, become /a/b, /a/:x, /... .

// order returns routes in the order in which they are tried; they come in that of the app.
func order(routes []*route) []*route {
	root := &node{}
	for _, r := range routes {
		if middle, right := root.insert(r); middle != nil {
			root = &node{routes: []*route{middle}, children: []*node{root, right}}
		}
	}
	return root.appendTo(make([]*route, 0, len(routes)))
}

// before reports whether r, the newer one, goes before s: by the first pair of segments of which one is more specific;
// else with more dots; else with fewer segments.
func (r *route) before(s *route) bool {
	for i := range min(len(r.segments), len(s.segments)) {
		if c := precedence(r.segments[i].kind, s.segments[i].kind); c != 0 {
			return c > 0
		}
	}
	if r.dots != s.dots {
		return r.dots > s.dots
	}
	return len(r.segments) < len(s.segments)
}

// precedence compares two kinds. A dot and anything but a slash each go before the other.
func precedence(a, b kind) int {
	rank := [...]int{slash: 0, dot: 0, wildcard: 1, param: 2, exact: 3}
	if rank[a] != rank[b] && (a == dot || b == dot) {
		return 1
	}
	return rank[a] - rank[b]
}

// maxNodeRoutes is what a node of Spin's B-tree holds.
const maxNodeRoutes = 11

// node is a node of a B-tree: the routes of children[i] go before routes[i]. A leaf has no children.
type node struct {
	routes   []*route
	children []*node
}

// insert adds r below n. If n was full, it returns the route that now stands between n and a new node to its right.
func (n *node) insert(r *route) (middle *route, right *node) {
	i := slices.IndexFunc(n.routes, r.before)
	if i < 0 {
		i = len(n.routes)
	}
	if n.children == nil {
		return n.put(i, r, nil)
	}
	if middle, right = n.children[i].insert(r); middle == nil {
		return nil, nil
	}
	return n.put(i, middle, right)
}

// put adds r at i, and after it child, which is nil in a leaf. It returns what insert does.
func (n *node) put(i int, r *route, child *node) (middle *route, right *node) {
	if len(n.routes) == maxNodeRoutes {
		at := maxNodeRoutes / 2
		switch {
		case i < at:
			at--
		case i > at+1:
			at++
		}
		middle, right = n.split(at)
		if i > at {
			n, i = right, i-at-1
		}
	}
	n.routes = slices.Insert(n.routes, i, r)
	if child != nil {
		n.children = slices.Insert(n.children, i+1, child)
	}
	return middle, right
}

// split moves what is after routes[at] into a new node, and takes routes[at] out.
func (n *node) split(at int) (middle *route, right *node) {
	middle = n.routes[at]
	right = &node{routes: slices.Clone(n.routes[at+1:])}
	n.routes = n.routes[:at]
	if n.children != nil {
		right.children = slices.Clone(n.children[at+1:])
		n.children = n.children[:at+1]
	}
	return middle, right
}

func (n *node) appendTo(routes []*route) []*route {
	for i, r := range n.routes {
		if n.children != nil {
			routes = n.children[i].appendTo(routes)
		}
		routes = append(routes, r)
	}
	if n.children != nil {
		routes = n.children[len(n.routes)].appendTo(routes)
	}
	return routes
}
