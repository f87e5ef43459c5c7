pub struct Batches;
