"""Where the images of a dataset come from: folders and archives, and the images in them by class."""
