package main

import (
	"context"
	"fmt"
)

// memory is what a pod takes, in MB, after each pod answered one request: all processes of its shim, and of these the app's alone.
type memory struct {
	App      string  `json:"app"`
	One      float64 `json:"one_pod_mb"`
	OneApp   float64 `json:"one_pod_app_mb"`
	Many     float64 `json:"each_of_many_mb"`
	ManyApp  float64 `json:"each_of_many_app_mb"`
	Procs    int     `json:"processes"`
	ManyPods int     `json:"many"`
}

func (l *lab) measureMemory(ctx context.Context, all []*subject, o options) ([]*memory, error) {
	var result []*memory
	for _, s := range all {
		m := &memory{App: s.name, ManyPods: o.pods}
		var pods []*pod
		for i := range o.pods {
			p, err := l.start(ctx, s, fmt.Sprintf("memory-%d", i))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			pods = append(pods, p)
			if i == 0 {
				if m.One, m.OneApp, m.Procs, err = podMemory(p); err != nil {
					return nil, err
				}
			}
		}
		for _, p := range pods {
			all, app, _, err := podMemory(p)
			if err != nil {
				return nil, err
			}
			m.Many += all / float64(o.pods)
			m.ManyApp += app / float64(o.pods)
		}
		if err := l.remove(ctx, pods...); err != nil {
			return nil, err
		}
		result = append(result, m)
	}
	return result, nil
}

func podMemory(p *pod) (all, app float64, processes int, err error) {
	shim, err := parent(p.pid)
	if err != nil {
		return 0, 0, 0, err
	}
	pids, err := family(shim)
	if err != nil {
		return 0, 0, 0, err
	}
	for _, pid := range pids {
		mb, err := pss(pid)
		if err != nil {
			return 0, 0, 0, err
		}
		all += mb
		if pid == p.pid {
			app = mb
		}
	}
	return all, app, len(pids), nil
}
