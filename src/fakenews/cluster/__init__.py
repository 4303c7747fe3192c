"""Starting the job elsewhere: in several processes, on other machines."""
