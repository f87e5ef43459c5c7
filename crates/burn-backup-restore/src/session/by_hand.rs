pub enum Flow {
    Continue,
    Stop,
}
pub struct Session {
    core: super::Core,
}
