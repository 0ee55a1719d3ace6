"""VP-HMDB51 and VP-UCF101: a utility head, a privacy head and an anonymizer on the videos that have both labels."""
