package main

import (
	"bytes"
	"fmt"
	"html"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// The picture of the terminal in the README is what is drawn for these readings. To
// renew it: go test -run TestPicture -update
func TestPicture(t *testing.T) {
	c := chartOf("web1:5000", 150, namesOf(picturedCPUs, picturedWords...), picturedReading)
	c.window = 2 * time.Minute
	var want bytes.Buffer
	writeSVG(&want, c.draw(noon, 100, 36))
	const name = "doc/terminal.svg"
	if *update {
		if err := os.WriteFile(name, want.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%s is not what is drawn: %v (go test -run TestPicture -update)", name, err)
	}
}

// What the pictures show.
const picturedCPUs = 16

var picturedWords = []word{cpuWord, modesWord, coresWord}

func picturedReading(s, column int) float64 {
	wave := func(s int, speed float64) float64 { return 0.5 + 0.5*math.Sin(float64(s)/speed) }
	user, system := 12+38*wave(s, 17)*wave(s, 5), 5+9*wave(s, 7)
	iowait := 0.0
	if s/12%5 == 3 {
		iowait = 14
	}
	softirq := 1.5 + 3*wave(s, 3)
	modes := []float64{user, 2, system, iowait, 0.5, softirq, 0, 97.5 - user - system - iowait - softirq}
	switch {
	case column == 0:
		return user + system + 6
	case column < 9:
		return modes[column-1]
	}
	core := column - 9
	if core == 5 {
		return 100
	}
	return min(100, max(0, 130*wave(s+7*core, 11)*wave(s, float64(9+core))-20*float64(core%3)))
}

// writeSVG writes a frame as it looks on a dark terminal with 256 colors.
func writeSVG(w *bytes.Buffer, f *frame) {
	const cw, ch = 8, 16
	hex := func(c ink, otherwise string) string {
		if c == 0 {
			return otherwise
		}
		return fmt.Sprintf("#%06x", color(c).Hex())
	}
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="monospace" font-size="13">`+"\n", f.w*cw+16, f.h*ch+16)
	fmt.Fprintf(w, `<rect width="100%%" height="100%%" rx="6" fill="#111"/><g transform="translate(8 8)">`+"\n")
	dots := map[string]*strings.Builder{} // by color
	rect := func(x, y, w2, h float64, fill string) {
		fmt.Fprintf(w, `<rect x="%g" y="%g" width="%g" height="%g" fill="%s"/>`+"\n", x, y, w2, h, fill)
	}
	for y := range f.h {
		for x := 0; x < f.w; x++ {
			r, st := f.runes[y*f.w+x], f.styles[y*f.w+x]
			px, py := float64(x*cw), float64(y*ch)
			fg := hex(st.fg, "#ccc")
			filled := strings.IndexRune(" ▁▂▃▄▅▆▇█", r)
			switch {
			case r == ' ':
			case r >= 0x2800 && r <= 0x28ff, r == '·':
				if dots[fg] == nil {
					dots[fg] = new(strings.Builder)
				}
				for dy := range 4 {
					for dx := range 2 {
						if r != '·' && int(r-0x2800)&int(dotBits[dy][dx]) != 0 {
							fmt.Fprintf(dots[fg], "M%d %dh0", x*cw+2+4*dx, y*ch+2+4*dy)
						}
					}
				}
				if r == '·' {
					fmt.Fprintf(dots[fg], "M%d %dh0", x*cw+4, y*ch+7)
				}
			case r == '│', r == '┤':
				rect(px+3.5, py, 1, ch, fg)
				if r == '┤' {
					rect(px, py+8, 4, 1, fg)
				}
			case filled > 0, r == '▀':
				run := 1 // cells of the same look
				for x+run < f.w && f.runes[y*f.w+x+run] == r && f.styles[y*f.w+x+run] == st {
					run++
				}
				top, height := py, 8.0
				if filled > 0 {
					height = float64(2 * len([]rune(" ▁▂▃▄▅▆▇█"[:filled])))
					top = py + ch - height
				}
				if st.bg != 0 {
					rect(px, py, float64(run*cw), ch, hex(st.bg, ""))
				}
				rect(px, top, float64(run*cw), height, fg)
				x += run - 1
			default:
				run := 1
				for x+run < f.w && f.styles[y*f.w+x+run] == st && f.runes[y*f.w+x+run] != ' ' {
					run++
				}
				weight := ""
				if st.bold {
					weight = ` font-weight="bold"`
				}
				text := html.EscapeString(string(f.runes[y*f.w+x : y*f.w+x+run]))
				fmt.Fprintf(w, `<text x="%g" y="%g" textLength="%d" fill="%s"%s>%s</text>`+"\n", px, py+12, run*cw, fg, weight, text)
				x += run - 1
			}
		}
	}
	for _, fg := range slices.Sorted(maps.Keys(dots)) {
		fmt.Fprintf(w, `<path stroke="%s" stroke-width="2.4" stroke-linecap="round" d="%s"/>`+"\n", fg, dots[fg])
	}
	w.WriteString("</g></svg>\n")
}
