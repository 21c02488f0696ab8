module occam

go 1.26
