"""PA-HMDB51: the privacy-utility trade-off on videos whose private attributes are known frame by frame."""
