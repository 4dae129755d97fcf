"""What reads the files of datasets: what readers have in common, and those too long to stand in
their dataset's own file."""
