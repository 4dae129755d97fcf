"""Pictures and arrays out of files of unknown origin: right, or refused with a reason."""
