//! The order queue on SQS, standard and FIFO.
