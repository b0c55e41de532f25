// Fother-cc stands for a compiler, assembler or linker and captures what it
// does. Package compiler describes how; its own flags are none, all belong to
// the tool that it stands for.
//
//	CC=fother-cc CXX=fother-c++ make            (a symbolic link to fother-cc)
//	fother-cc gcc-13 -c file.c                  (the compiler as an argument)
//
// KPATCH_STAGE=original or patched turns capture on, FOTHER_STORE names the
// store. KPCCREAL and KPCXXREAL name the real compilers; the default is gcc
// and g++. KPCC_REMOVE_ARGS and KPCC_APPEND_ARGS, lists with semicolons, change
// the arguments of compilers that are captured. LibCare's libcare-cc is a
// symbolic link to this program.
package main

import (
	"os"

	"github.com/fother/fother/compiler/internal/shim"
)

func main() { os.Exit(shim.Main(os.Args, os.Stderr)) }
