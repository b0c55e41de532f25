package kpack

import (
	"cmp"
	"fmt"
	"slices"
)

// readVariables checks what a file tells of variables.
func (d *decoder) readVariables(all []Variable) error {
	if len(all) > maxVariables {
		return errManyVariables
	}
	for i := range all {
		if err := d.checkVariable(&all[i]); err != nil {
			return fmt.Errorf("variable %q: %w", all[i].Name, err)
		}
	}
	bySymbol := slices.SortedFunc(slices.Values(all), func(x, y Variable) int {
		a, b := d.patch.Symbols[x.Symbol], d.patch.Symbols[y.Symbol]
		return cmp.Or(cmp.Compare(a.Section, b.Section), cmp.Compare(a.Value, b.Value))
	})
	for i := 1; i < len(bySymbol); i++ {
		x, y := d.patch.Symbols[bySymbol[i-1].Symbol], d.patch.Symbols[bySymbol[i].Symbol]
		if x.Section == y.Section && y.Value-x.Value < x.Size {
			return fmt.Errorf("variables %q and %q overlap", bySymbol[i-1].Name, bySymbol[i].Name)
		}
	}
	d.patch.Variables = all
	return nil
}

func (d *decoder) checkVariable(v *Variable) error {
	if v.Symbol < 0 || v.Symbol >= len(d.patch.Symbols) {
		return fmt.Errorf("symbol %d of %d", v.Symbol, len(d.patch.Symbols))
	}
	s := d.patch.Symbols[v.Symbol]
	if !d.patch.variable(s) || s.Size != v.Size || s.Size > d.patch.Sections[s.Section].Size-s.Value {
		return fmt.Errorf("%d bytes: symbol %q is not that of writable data", v.Size, s.Name)
	}
	if v.Name == "" || v.Align == 0 || v.Align > maxAlign || v.Align&(v.Align-1) != 0 || len(v.Users) > maxUsers {
		return fmt.Errorf("aligned to %d bytes, %d users", v.Align, len(v.Users))
	}
	for _, t := range append([]string{v.Name, v.Unit, v.Scope, v.Type}, v.Users...) {
		if err := checkText(t); err != nil {
			return err
		}
	}
	return nil
}
