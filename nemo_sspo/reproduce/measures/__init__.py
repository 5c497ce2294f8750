"""One file per measure: from what a judge or a stage has left to the number of a cell."""
