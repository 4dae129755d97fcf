"""Images that are to be labelled: their listing, the plan of a job, and how they are read."""
