module go-counter

go 1.26
