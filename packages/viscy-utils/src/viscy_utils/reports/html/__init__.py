"""A report as one page that opens in a browser and asks nothing of the network (extra ``report``)."""
