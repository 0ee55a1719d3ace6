"""Whether people can be recognised by the features of their walk, on Casia-B."""
