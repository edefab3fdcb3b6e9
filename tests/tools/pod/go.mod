module reef.dev/tests/tools/pod

go 1.24
