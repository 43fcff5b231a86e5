"""What each data set is: a file per source, which lists its images and their classes."""
