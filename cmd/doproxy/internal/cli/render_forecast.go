package cli

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// monthHours are the hours of a month, on average.
const monthHours = 730

// forecastText is what would come of a request, a sentence a line; empty if the
// node did not tell.
func forecastText(st style, f *doproxyv1.Forecast) string {
	if f == nil {
		return ""
	}
	f = cleaned(f)
	var b strings.Builder
	line := func(paint func(string) string, format string, args ...any) {
		b.WriteString(paint(wrap(fmt.Sprintf(format, args...), st.width, "  ")) + "\n")
	}
	same := func(s string) string { return s }
	var deletes []string // without a drain
	for _, name := range f.GetDeletes() {
		if !slices.Contains(f.GetDrains(), name) {
			deletes = append(deletes, name)
		}
	}
	if len(f.GetCreates())+len(f.GetDrains())+len(deletes) == 0 {
		line(same, "Would create and delete nothing.")
	}
	if names := f.GetCreates(); len(names) > 0 {
		line(same, "Would create %s.", fewNames(names))
	}
	if names := f.GetDrains(); len(names) > 0 {
		line(same, "Would drain and delete %s.", fewNames(names))
	}
	if len(deletes) > 0 {
		line(same, "Would delete %s.", fewNames(deletes))
	}
	line(same, "%s", costText(st, f.GetCostHourlyBefore(), f.GetCostHourlyAfter()))
	if sizes := f.GetUnpricedSizes(); len(sizes) > 0 {
		line(st.yellow, "Not in it: %s, whose price is not known.", strings.Join(sizes, ", "))
	}
	for _, hold := range f.GetHolds() {
		line(st.yellow, "Held up: %s", hold)
	}
	return b.String()
}

// costText is the cost an hour, before and after.
func costText(st style, before, after float64) string {
	change := after - before
	if math.Abs(change) < 0.00005 {
		return fmt.Sprintf("Cost: %s an hour, as before.", money(after))
	}
	sign := "+"
	if change < 0 {
		sign, change = "-", -change
	}
	return fmt.Sprintf("Cost: %s %s %s an hour (%s%s, about %s%s a month).", money(before), st.arrow(), money(after), sign, money(change), sign, monthly(change))
}

// money is an amount an hour in US dollars: cents, and below a dollar as many
// digits as the prices of small droplets need.
func money(amount float64) string {
	if math.Abs(amount) >= 1 {
		return "$" + grouped(strconv.FormatFloat(amount, 'f', 2, 64))
	}
	text := strconv.FormatFloat(amount, 'f', 4, 64)
	for strings.HasSuffix(text, "0") && len(text)-strings.IndexByte(text, '.') > 3 {
		text = text[:len(text)-1]
	}
	return "$" + text
}

// monthly is what an amount an hour comes to in a month.
func monthly(hourly float64) string {
	if amount := hourly * monthHours; amount >= 10 {
		return "$" + grouped(strconv.FormatFloat(amount, 'f', 0, 64))
	}
	return "$" + strconv.FormatFloat(hourly*monthHours, 'f', 2, 64)
}

// grouped puts a comma before each three digits of a number that is not negative.
func grouped(number string) string {
	whole, rest := number, ""
	if dot := strings.IndexByte(number, '.'); dot >= 0 {
		whole, rest = number[:dot], number[dot:]
	}
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	return whole + rest
}

// fewNames are all of a few, or the first and how many more.
func fewNames(names []string) string {
	const most, first = 4, 2
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:first], ", "), len(names)-first)
	}
	return listed(names)
}

// listed joins names as a sentence does.
func listed(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}
