// What runs in pods of the test bed's own node, which pulls from its own registry only: `pod pause` holds a pod's namespaces, `pod web`
// serves /usr/share/nginx/html on port 8080, as the plugin website asks of its image.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	switch os.Args[len(os.Args)-1] {
	case "version":
		fmt.Println("pod v1.0.0")
		return
	case "web":
		go func() {
			fmt.Fprintln(os.Stderr, http.ListenAndServe(":8080", http.FileServer(http.Dir("/usr/share/nginx/html"))))
			os.Exit(1)
		}()
	}
	<-end
}
