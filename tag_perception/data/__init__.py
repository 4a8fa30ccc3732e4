"""Where labelled images come from: the real dataset's reader and the synthetic streets."""
