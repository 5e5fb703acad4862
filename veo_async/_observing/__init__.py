"""
Telling observers what happens.

Start reading at `observers`, through which all other rooms tell of events. `log_observer` is the one observer that is
always there: it writes events to the log.
"""
