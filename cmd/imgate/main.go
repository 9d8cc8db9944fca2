// Command imgate is the messaging gateway with the plugins that we ship. For a
// build with plugins of your own, copy this file and change the list.
package main

import (
	"os"

	"github.com/imgate/imgate/cmd/imgate/app"
	"github.com/imgate/imgate/plugins/standard"
)

func main() { os.Exit(app.Main(standard.Plugins...)) }
